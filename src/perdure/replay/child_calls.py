"""Calls of other orchestrations as parts of this one, by reference or by name.

As in `activity_calls`, most of this module is types: input and output follow from a reference's annotations, in
both styles. The output of a generator is the third argument of its `Generator` return type.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from functools import partial
from types import UnionType
from typing import Any, Protocol, Self, TypedDict, TypeVar, Unpack, overload

from perdure.model import events as ev
from perdure.model.instances import check_child_id
from perdure.model.retry import RetryPolicy
from perdure.replay.activity_calls import Same
from perdure.replay.entity_calls import EntityCalls
from perdure.replay.inputs import NO_INPUT
from perdure.replay.patches import check_version
from perdure.replay.task import RetryTask, Task

I = TypeVar("I")  # noqa: E741 - an input, as T is a result
T = TypeVar("T")
I_contra = TypeVar("I_contra", contravariant=True)
T_co = TypeVar("T_co", covariant=True)
Orchestrator = str | Callable[..., Any]


class ChildTakesBehind(Protocol[I_contra, T_co]):
    """An orchestrator whose input follows its context.

    The context's type is Any: with the real type, mypy explains a wrong input by another overload.
    """

    def __call__(self, context: Any, input_: I_contra, /, *args: Any, **kwargs: Any) -> T_co: ...


class ChildOptions(TypedDict, total=False):
    """The optional arguments of a call of a sub-orchestration."""

    retry: RetryPolicy | None


class ChildCalls(EntityCalls):
    """The part of an orchestration's context that calls other orchestrations."""

    __slots__ = ()

    @overload
    def call_sub_orchestrator(
        self,
        name: str,
        input_: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
        expected_type: None = None,
        **options: Unpack[ChildOptions],
    ) -> Task[Any]: ...
    @overload
    def call_sub_orchestrator(
        self,
        name: Orchestrator,
        input_: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
        *,
        expected_type: type[T],
        **options: Unpack[ChildOptions],
    ) -> Task[T]: ...
    @overload
    def call_sub_orchestrator(
        self,
        name: Orchestrator,
        input_: Any,
        instance_id: str | None,
        version: str | None,
        expected_type: type[T],
        **options: Unpack[ChildOptions],
    ) -> Task[T]: ...
    @overload
    def call_sub_orchestrator(
        self,
        name: Orchestrator,
        input_: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
        *,
        expected_type: UnionType,
        **options: Unpack[ChildOptions],
    ) -> Task[Any]: ...
    @overload
    def call_sub_orchestrator(
        self,
        name: ChildTakesBehind[I, Coroutine[Any, Any, T]],
        input_: I | Same[I],
        instance_id: str | None = None,
        version: str | None = None,
        **options: Unpack[ChildOptions],
    ) -> Task[T]: ...
    @overload
    def call_sub_orchestrator(
        self,
        name: ChildTakesBehind[I, Generator[Any, Any, T]],
        input_: I | Same[I],
        instance_id: str | None = None,
        version: str | None = None,
        **options: Unpack[ChildOptions],
    ) -> Task[T]: ...
    @overload
    def call_sub_orchestrator(
        self,
        name: ChildTakesBehind[I, T],
        input_: I | Same[I],
        instance_id: str | None = None,
        version: str | None = None,
        **options: Unpack[ChildOptions],
    ) -> Task[T]: ...
    @overload
    def call_sub_orchestrator(
        self,
        name: Callable[[Self], Coroutine[Any, Any, T]],
        input_: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
        **options: Unpack[ChildOptions],
    ) -> Task[T]: ...
    @overload
    def call_sub_orchestrator(
        self,
        name: Callable[[Self], Generator[Any, Any, T]],
        input_: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
        **options: Unpack[ChildOptions],
    ) -> Task[T]: ...
    @overload
    def call_sub_orchestrator(
        self,
        name: Callable[[Self], T],
        input_: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
        **options: Unpack[ChildOptions],
    ) -> Task[T]: ...
    def call_sub_orchestrator(
        self,
        name: Any,
        input_: Any = NO_INPUT,
        instance_id: str | None = None,
        version: str | None = None,
        expected_type: Any = None,
        *,
        retry: RetryPolicy | None = None,
    ) -> Task[Any]:
        """Start an orchestration as a part of this one; wait for the returned task to get its output.

        With `retry`, each attempt is a new run (with the same id, if you gave one).

        Parameters:
            instance_id: the id of the sub-orchestration; by default derived from this call. A finished instance
                with that id is replaced, with its history. An unfinished one fails the task with
                InstanceExists.
        """
        self._alive()
        self._outside_section("calling a sub-orchestration")
        if expected_type is not None:
            self._check_readable(expected_type, ev.SubOrchestrationCreated)
        target = self._target(self._env.orchestrator, name)
        if instance_id is not None:
            check_child_id(instance_id, self.instance_id)
        check_version(version)
        start = partial(
            self._create_child,
            target.name,
            self._guarded_body(target.guard, input_, ev.SubOrchestrationCreated),
            instance_id,
            version or target.version,
            target.output_type if expected_type is None else expected_type,
        )
        return start(-1, 1) if retry is None else RetryTask(self, target.name, retry, start)

    @overload
    def call_sub_orchestrator_with_retry(
        self,
        name: str,
        retry_options: RetryPolicy,
        input_: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
        expected_type: None = None,
    ) -> Task[Any]: ...
    @overload
    def call_sub_orchestrator_with_retry(
        self,
        name: Orchestrator,
        retry_options: RetryPolicy,
        input_: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
        *,
        expected_type: type[T],
    ) -> Task[T]: ...
    @overload
    def call_sub_orchestrator_with_retry(
        self,
        name: Orchestrator,
        retry_options: RetryPolicy,
        input_: Any,
        instance_id: str | None,
        version: str | None,
        expected_type: type[T],
    ) -> Task[T]: ...
    @overload
    def call_sub_orchestrator_with_retry(
        self,
        name: Orchestrator,
        retry_options: RetryPolicy,
        input_: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
        *,
        expected_type: UnionType,
    ) -> Task[Any]: ...
    @overload
    def call_sub_orchestrator_with_retry(
        self,
        name: ChildTakesBehind[I, Coroutine[Any, Any, T]],
        retry_options: RetryPolicy,
        input_: I | Same[I],
        instance_id: str | None = None,
        version: str | None = None,
    ) -> Task[T]: ...
    @overload
    def call_sub_orchestrator_with_retry(
        self,
        name: ChildTakesBehind[I, Generator[Any, Any, T]],
        retry_options: RetryPolicy,
        input_: I | Same[I],
        instance_id: str | None = None,
        version: str | None = None,
    ) -> Task[T]: ...
    @overload
    def call_sub_orchestrator_with_retry(
        self,
        name: ChildTakesBehind[I, T],
        retry_options: RetryPolicy,
        input_: I | Same[I],
        instance_id: str | None = None,
        version: str | None = None,
    ) -> Task[T]: ...
    @overload
    def call_sub_orchestrator_with_retry(
        self,
        name: Callable[[Self], Coroutine[Any, Any, T]],
        retry_options: RetryPolicy,
        input_: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
    ) -> Task[T]: ...
    @overload
    def call_sub_orchestrator_with_retry(
        self,
        name: Callable[[Self], Generator[Any, Any, T]],
        retry_options: RetryPolicy,
        input_: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
    ) -> Task[T]: ...
    @overload
    def call_sub_orchestrator_with_retry(
        self,
        name: Callable[[Self], T],
        retry_options: RetryPolicy,
        input_: Any = None,
        instance_id: str | None = None,
        version: str | None = None,
    ) -> Task[T]: ...
    def call_sub_orchestrator_with_retry(
        self,
        name: Any,
        retry_options: RetryPolicy,
        input_: Any = NO_INPUT,
        instance_id: str | None = None,
        version: str | None = None,
        expected_type: Any = None,
    ) -> Task[Any]:
        """`call_sub_orchestrator` with a retry policy, as Azure spells it."""
        return self.call_sub_orchestrator(
            name, input_, instance_id, version, expected_type, retry=retry_options
        )


__all__ = ["ChildCalls"]
