"""Calls of activities, by reference or by name.

Most of this module is types. A reference gives a type checker the input and the output, so that a wrong input
is an error where it is written and a result needs no annotation. A name has no type: its result is Any unless
`expected_type` is given. Other parameters of an activity (its context, resources) follow the input, or the
context precedes it; the input of a function with the context alone is not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from types import UnionType
from typing import Any, Never, Protocol, TypeAlias, TypedDict, TypeVar, Unpack, overload

from msgspec import Raw

from perdure.model import events as ev
from perdure.model import payload
from perdure.model.durations import Seconds
from perdure.model.events import ABSENT
from perdure.model.retry import RetryPolicy
from perdure.replay.activity_context import ActivityContext
from perdure.replay.inputs import NO_INPUT
from perdure.replay.recorder import Recorder
from perdure.replay.task import RetryTask, Task

I = TypeVar("I")  # noqa: E741 - an input, as T is a result
T = TypeVar("T")
I_contra = TypeVar("I_contra", contravariant=True)
T_co = TypeVar("T_co", covariant=True)
Activity = str | Callable[..., Any]


class Takes(Protocol[I_contra, T_co]):
    """A function whose input comes first."""

    def __call__(self, input_: I_contra, /, *args: Any, **kwargs: Any) -> T_co: ...


class TakesBehind(Protocol[I_contra, T_co]):
    """A function whose input follows its context."""

    def __call__(self, context: ActivityContext, input_: I_contra, /, *args: Any, **kwargs: Any) -> T_co: ...


Same: TypeAlias = Callable[[I], Never]
"""No caller passes one. It makes mypy check the function first, and then report the expected input type."""


class ActivityOptions(TypedDict, total=False):
    """The optional arguments of a call of an activity."""

    retry: RetryPolicy | None
    timeout: Seconds | None
    heartbeat_timeout: Seconds | None


class ActivityCalls(Recorder):
    """The part of an orchestration's context that calls activities."""

    __slots__ = ()

    @overload
    def call_activity(
        self, name: str, input_: Any = None, expected_type: None = None, **options: Unpack[ActivityOptions]
    ) -> Task[Any]: ...
    @overload
    def call_activity(
        self, name: Activity, input_: Any, expected_type: type[T], **options: Unpack[ActivityOptions]
    ) -> Task[T]: ...
    @overload
    def call_activity(
        self,
        name: Activity,
        input_: Any = None,
        *,
        expected_type: type[T],
        **options: Unpack[ActivityOptions],
    ) -> Task[T]: ...
    @overload
    def call_activity(
        self, name: Activity, input_: Any, expected_type: UnionType, **options: Unpack[ActivityOptions]
    ) -> Task[Any]: ...
    @overload
    def call_activity(
        self, name: Takes[I, Coroutine[Any, Any, T]], input_: I | Same[I], **options: Unpack[ActivityOptions]
    ) -> Task[T]: ...
    @overload
    def call_activity(
        self, name: Takes[I, T], input_: I | Same[I], **options: Unpack[ActivityOptions]
    ) -> Task[T]: ...
    @overload
    def call_activity(
        self,
        name: TakesBehind[I, Coroutine[Any, Any, T]],
        input_: I | Same[I],
        **options: Unpack[ActivityOptions],
    ) -> Task[T]: ...
    @overload
    def call_activity(
        self, name: TakesBehind[I, T], input_: I | Same[I], **options: Unpack[ActivityOptions]
    ) -> Task[T]: ...
    @overload
    def call_activity(
        self,
        name: Callable[[], Coroutine[Any, Any, T]],
        input_: None = None,
        **options: Unpack[ActivityOptions],
    ) -> Task[T]: ...
    @overload
    def call_activity(
        self, name: Callable[[], T], input_: None = None, **options: Unpack[ActivityOptions]
    ) -> Task[T]: ...
    @overload
    def call_activity(
        self,
        name: Callable[[ActivityContext], Coroutine[Any, Any, T]],
        input_: Any = None,
        **options: Unpack[ActivityOptions],
    ) -> Task[T]: ...
    @overload
    def call_activity(
        self, name: Callable[[ActivityContext], T], input_: Any = None, **options: Unpack[ActivityOptions]
    ) -> Task[T]: ...
    def call_activity(
        self,
        name: Any,
        input_: Any = NO_INPUT,
        expected_type: Any = None,
        *,
        retry: RetryPolicy | None = None,
        timeout: Seconds | None = None,
        heartbeat_timeout: Seconds | None = None,
    ) -> Task[Any]:
        """Schedule an activity now; wait for the returned task to get its result.

        Parameters:
            name: the function itself (its return annotation types the result) or its registered name.
            input_: anything strict JSON can carry; encoded once, here. Without it the parameter's own default
                applies, if it has one.
            expected_type: the result's type, if there is no annotation.
            retry: overrides the activity's own retry policy.
            timeout: maximal seconds of one attempt from its start; overrides the activity's own.
            heartbeat_timeout: maximal seconds of one attempt without `context.heartbeat()`; overrides the
                activity's own.

        Raises:
            PayloadError, and ValueError for a timeout that is negative or too long, at once; the task raises
            TaskFailedError when the activity failed. An unregistered name raises nothing: the instance waits,
                with reason no_worker, for a worker that has the activity.
        """
        if self._doom is not None:
            self._refuse(self._doom)
        if expected_type is not None:
            self._check_readable(expected_type, ev.TaskScheduled)
        target = self._target(self._env.activity, name)
        if target.guard is not None:
            self._hold(target.guard, input_, ev.TaskScheduled)
        body = ABSENT if input_ is NO_INPUT else Raw(payload.encode(input_))
        limit = target.timeout if timeout is None else self._limit(timeout, "timeout", "timeout")
        silence = (
            target.heartbeat
            if heartbeat_timeout is None
            else self._limit(heartbeat_timeout, "heartbeat_timeout", "heartbeat")
        )
        expected = target.output_type if expected_type is None else expected_type
        policy = retry if retry is not None else target.retry
        if policy is None:
            return self._schedule(target.name, body, limit, silence, expected, -1, 1)
        start = partial(self._schedule, target.name, body, limit, silence, expected)
        return RetryTask(self, target.name, policy, start)

    @overload
    def call_activity_with_retry(
        self, name: str, retry_options: RetryPolicy, input_: Any = None, expected_type: None = None
    ) -> Task[Any]: ...
    @overload
    def call_activity_with_retry(
        self, name: Activity, retry_options: RetryPolicy, input_: Any, expected_type: type[T]
    ) -> Task[T]: ...
    @overload
    def call_activity_with_retry(
        self, name: Activity, retry_options: RetryPolicy, input_: Any = None, *, expected_type: type[T]
    ) -> Task[T]: ...
    @overload
    def call_activity_with_retry(
        self, name: Activity, retry_options: RetryPolicy, input_: Any, expected_type: UnionType
    ) -> Task[Any]: ...
    @overload
    def call_activity_with_retry(
        self, name: Takes[I, Coroutine[Any, Any, T]], retry_options: RetryPolicy, input_: I | Same[I]
    ) -> Task[T]: ...
    @overload
    def call_activity_with_retry(
        self, name: Takes[I, T], retry_options: RetryPolicy, input_: I | Same[I]
    ) -> Task[T]: ...
    @overload
    def call_activity_with_retry(
        self, name: TakesBehind[I, Coroutine[Any, Any, T]], retry_options: RetryPolicy, input_: I | Same[I]
    ) -> Task[T]: ...
    @overload
    def call_activity_with_retry(
        self, name: TakesBehind[I, T], retry_options: RetryPolicy, input_: I | Same[I]
    ) -> Task[T]: ...
    @overload
    def call_activity_with_retry(
        self, name: Callable[[], Coroutine[Any, Any, T]], retry_options: RetryPolicy, input_: None = None
    ) -> Task[T]: ...
    @overload
    def call_activity_with_retry(
        self, name: Callable[[], T], retry_options: RetryPolicy, input_: None = None
    ) -> Task[T]: ...
    @overload
    def call_activity_with_retry(
        self,
        name: Callable[[ActivityContext], Coroutine[Any, Any, T]],
        retry_options: RetryPolicy,
        input_: Any = None,
    ) -> Task[T]: ...
    @overload
    def call_activity_with_retry(
        self, name: Callable[[ActivityContext], T], retry_options: RetryPolicy, input_: Any = None
    ) -> Task[T]: ...
    def call_activity_with_retry(
        self,
        name: Any,
        retry_options: RetryPolicy,
        input_: Any = NO_INPUT,
        expected_type: Any = None,
    ) -> Task[Any]:
        """`call_activity` with a retry policy, as Azure spells it."""
        return self.call_activity(name, input_, expected_type, retry=retry_options)


__all__ = ["ActivityCalls"]
