"""An orchestration of an Azure app: the user's generator and the SDK's tasks, kept warm on perdure's context.

The generator is driven here. What it yields is walked depth first, and each task in it that was not asked for yet is
asked of perdure's context: tasks that the program never yields are never asked for, as on Azure. The bridge waits for
one thing only, perdure's `Arrivals`; each completion sets the value of an SDK task, which the SDK passes up through
its compounds, and when the yielded task is done the generator goes on. Replay is perdure's replay of all this.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Final

from msgspec import Raw

from perdure.engine.functions.callables import presented
from perdure.errors import Interrupted
from perdure.hosts.azure_functions import sdk
from perdure.hosts.azure_functions.asking import (
    EVENT,
    TIMER,
    Names,
    ask_of,
    body_of,
    failure_for,
    refusal_of,
)
from perdure.replay.arrivals import Arrivals
from perdure.replay.context import OrchestrationContext
from perdure.replay.fiber import CLOSINGS
from perdure.replay.relay import DEEPEST, Standing
from perdure.replay.task import FAILED, PENDING

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from perdure.replay.task import Task

log = logging.getLogger("perdure.azure")
_warned: Final[set[str]] = set()


class HostedContext(sdk.Context):
    """What an orchestrator of an Azure app sees: the SDK's context, on top of perdure's."""

    _custom_status: Any = None

    def __init__(self, durable: OrchestrationContext, input_type: type | None) -> None:
        # The SDK's own constructor reads a history, and there is none.
        self._durable = durable
        if input_type is not None:
            self._input_expected_type = input_type

    @property
    def instance_id(self) -> str:
        return self._durable.instance_id

    @property
    def parent_instance_id(self) -> str | None:
        return self._durable.parent_instance_id

    @property
    def is_replaying(self) -> bool:
        return self._durable.is_replaying

    @property
    def current_utc_datetime(self) -> datetime:
        return self._durable.current_utc_datetime

    @property
    def version(self) -> str | None:
        return self._durable.version

    @property
    def custom_status(self) -> Any:
        return self._custom_status

    @property
    def histories(self) -> list[Any]:
        """Empty, where `reads_histories` did not see that the program reads it; the status shows the history."""
        if "histories" not in _warned:
            _warned.add("histories")
            log.warning("context.histories is empty here: get_status(show_history=True) shows the history")
        return []

    # Programs read these attributes of the SDK's context too, though they are not public.
    _instance_id, _parent_instance_id, _is_replaying = instance_id, parent_instance_id, is_replaying
    _current_utc_datetime, _version, _histories = current_utc_datetime, version, histories

    @property
    def _input(self) -> str:
        return bytes(self._durable.get_input(Raw)).decode()

    def set_custom_status(self, status: Any) -> None:
        self._durable.set_custom_status(body_of(sdk.dumps(status)))
        self._custom_status = status

    def new_uuid(self) -> str:
        return self._durable.new_uuid()

    def new_guid(self) -> UUID:
        return self._durable.new_guid()

    def _record_fire_and_forget_action(self, action: Any) -> None:
        """What needs no answer is asked for when it is called. Behind a continue_as_new nothing counts."""
        if self.will_continue_as_new:
            return
        if isinstance(action, sdk.ContinueAsNew):
            self._durable.continue_as_new(body_of(action.input_), save_events=True)
        else:
            self._durable.signal_entity(action.instance_id, action.operation, body_of(action.input_))


class Asked:
    """One task of perdure's that was asked for, and the SDK's task that it is for: None once that is cancelled."""

    __slots__ = ("_opened", "of", "task")

    def __init__(self, opened: OpenTasks, of: Task[Any], task: Any) -> None:
        self._opened = opened
        self.of = of
        self.task = task

    def on_done(self, task: Task[Any]) -> None:
        self._opened.on_done(self)

    def cancel(self) -> None:
        """The program has cancelled a timer; for the SDK its task goes on waiting."""
        if self.task is not None:
            self.task = None
            self.of._drop_waiter(self)
            self.of.cancel()

    def _observe(self) -> None:
        self.of._observe()

    def _standing(self, depth: int = DEEPEST) -> Standing:
        return self._opened._standing(depth)


class OpenTasks(Arrivals[Asked]):
    """What one execution has asked for and not been answered. The bridge waits for it."""

    __slots__ = ("_durable", "_names", "_wait", "_waits")

    def __init__(self, durable: OrchestrationContext, names: Names) -> None:
        super().__init__(durable)
        self._durable = durable
        self._names = names
        self._wait: Any = None  # the SDK's one open wait for an event: a sleeping instance needs no table
        self._waits: dict[str, list[Any]] | None = None  # several open waits by name, the newest last

    def ask(self, task: Any) -> None:
        """Ask for every task in this one that was not asked for yet, depth first.

        A task that is done without having been asked for is of the program's own making.
        """
        if not isinstance(task, sdk.CompoundTask):
            if task.state is sdk.RUNNING and not sdk.is_scheduled(task):
                self._begin(task, task)
        elif isinstance(task, sdk.RetryAbleTask):
            if not sdk.is_scheduled(task.children[0]):
                self._begin(task, task.children[0])
        else:
            for child in task.children:
                self.ask(child)
            sdk.forget_actions(task)

    def refusal_to_ask(self, task: Any) -> Exception | None:
        """Ask for a task. What cannot be asked for is returned, to be raised where the program asks."""
        try:
            self.ask(task)
        except Exception as refused:
            return refused
        return None

    def _begin(self, task: Any, atomic: Any) -> None:
        action = sdk.action_of(task)
        row = ask_of(action)
        if row is TIMER and action.is_cancelled:
            return  # nothing will come of it
        of = row.begin(self._durable, action, self._names)
        sdk.mark_scheduled(atomic, of.id)
        asked = Asked(self, of, task)
        if row is EVENT:
            self._note_wait(task)
        elif row is TIMER and isinstance(task, sdk.Timer):
            task.asked = asked
        if of._state == PENDING:
            of._add_waiter(asked)
        else:
            of._observe()
            self._hand_on(asked)

    def _note_wait(self, task: Any) -> None:
        if self._waits is None and self._wait is None:
            self._wait = task
            return
        if self._waits is None:
            self._waits = {}
            self._named_as(self._wait).append(self._wait)
            self._wait = None
        self._named_as(task).append(task)

    def _named_as(self, wait: Any) -> list[Any]:
        """The open waits for the same event as this one."""
        assert self._waits is not None
        return self._waits.setdefault(sdk.action_of(wait).external_event_name.casefold(), [])

    def _newest_for(self, wait: Any) -> Any:
        """The wait that gets an event: the newest of the same name, as on Azure."""
        if self._waits is not None:
            return self._named_as(wait).pop()
        self._wait = None
        return wait

    def hand_on_next(self) -> bool:
        """Hand on the next outcome that has come. Returns False if there is none yet."""
        asked = self.take()
        if asked is None:
            return False
        self._hand_on(asked)
        return True

    def _hand_on(self, asked: Asked) -> None:
        """Give the outcome of one of perdure's tasks to the SDK's task that it is for."""
        task, done = asked.task, asked.of
        if task is None:
            return
        action = sdk.action_of(task)
        row = ask_of(action)
        if row is EVENT:
            task = self._newest_for(task)
        if done._state == FAILED:
            sdk.settle(task, failure_for(action, row, done), failed=True)
        else:
            sdk.settle(task, row.value(task, done._outcome), failed=False)


def bridged(handle: Any, names: Names) -> Callable[[OrchestrationContext], Any]:
    """The orchestrator behind a handle, as perdure runs it."""
    found = sdk.orchestrator_of(handle)

    def orchestrate(context: OrchestrationContext) -> Any:
        __tracebackhide__ = True
        seen = HostedContext(context, found.input_type)
        body = found.function(seen)
        if isinstance(body, GeneratorType):
            return _driven(seen, body, OpenTasks(context, names))
        return None if seen.will_continue_as_new else output_of(body)

    return presented(orchestrate, found.function, {"context": OrchestrationContext})


def _driven(
    seen: HostedContext, body: GeneratorType[Any, Any, Any], opened: OpenTasks
) -> Generator[Task[Any], Any, Any]:
    __tracebackhide__ = True  # each variable here costs a sleeping instance eight bytes
    value: Any = None
    error: Exception | None = None
    try:
        while True:
            try:
                task = body.send(value) if error is None else body.throw(error)
            except StopIteration as stop:
                return None if seen.will_continue_as_new else output_of(stop.value)
            value, error = None, refusal_of(task)
            if error is not None:
                continue
            if seen.will_continue_as_new and task.state is sdk.RUNNING:
                return None
            error = opened.refusal_to_ask(task)
            if error is not None:
                continue
            while task.state is sdk.RUNNING:
                if not opened.hand_on_next():
                    yield opened
            if task.state is sdk.SUCCEEDED:
                value = task.result
            else:
                error = task.result
    finally:
        _close(body)


def _close(body: GeneratorType[Any, Any, Any]) -> None:
    """Throw the program away; code that swallows its end is closed several times."""
    for _ in range(CLOSINGS):
        if body.gi_frame is None:
            return
        try:
            body.close()
        except Interrupted:
            raise
        except BaseException:
            pass


def output_of(value: Any) -> Raw | None:
    """What an orchestrator returns, as the SDK writes it. Raises TypeError for what JSON cannot carry."""
    return None if value is None else body_of(sdk.plain(value))


__all__ = ["HostedContext", "bridged", "output_of"]
