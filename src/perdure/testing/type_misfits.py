"""Checks the values that an instance's code has not read yet against the types of the current code.

Replay decodes the values that the code has received. After a deployment the others are decoded as well: the
inputs of open activities and sub-orchestrations, waiting events, inputs of instances that have not started,
states of entities. A value without a declared type fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from perdure.engine.client.client import Client
from perdure.engine.client.sync_client import SyncClient
from perdure.engine.functions.registry import Activity, plan_of
from perdure.errors import EventRefused, FunctionNotFound, MisfitError, PayloadError, RegistrationError
from perdure.model import events as ev
from perdure.model import messages as msg
from perdure.model import payload
from perdure.model.entities import name_in
from perdure.replay.activity_context import ActivityContext
from perdure.replay.determinism import misfit
from perdure.replay.state import State

if TYPE_CHECKING:
    from perdure.engine.functions.registry import Registry
    from perdure.engine.functions.resolved import Entry, FunctionTable
    from perdure.replay.decide import Execution
    from perdure.replay.entity import EntityCode

Kept = msg.Begin | msg.NextGeneration | msg.RaiseEvent
_GIVEN = (ActivityContext, Client, SyncClient)


class Undecoded:
    """Checks against one application."""

    def __init__(self, registry: Registry, functions: FunctionTable) -> None:
        self._registry = registry
        self._functions = functions
        self._inputs: dict[str, Any] = {}

    def asked_for(self, events: Iterable[ev.HistoryEvent], state: State) -> Iterator[MisfitError]:
        """The inputs of open calls and of pending retries."""
        calls = {event.id: event for event in events if isinstance(event, ev.TaskScheduled)}
        again = [
            calls[timer.of]
            for timer in state.timers.values()
            if timer.purpose == "retry" and timer.of in calls
        ]
        for task in [*(task for task, _ in state.activities.values()), *again]:
            whose = f"the input of call {task.id} (activity {task.name!r})"
            yield from _unfit(whose, task.input, self._input_of(task.name))
        for child, _ in state.children.values():
            entry = self._functions.orchestrator(child.name, child.version or None)
            whose = f"the input of call {child.id} (sub-orchestration {child.name!r})"
            yield from _unfit(whose, child.input, Any if entry is None else entry.code.input_type)
        for called, _ in state.operations.values():
            code = self._functions.entity(name_in(called.entity))
            whose = f"the input of call {called.id} ({called.operation!r} of {called.entity})"
            yield from _unfit(whose, called.input, Any if code is None else code.input_of(called.operation))

    def kept(
        self, entry: Entry, waiting: Iterable[Kept], execution: Execution | None
    ) -> Iterator[MisfitError]:
        """Accepted but undelivered inputs and events. `execution` is the replayed code."""
        for message in waiting:
            if isinstance(message, msg.RaiseEvent):
                yield from self.event(entry, message.name, message.input, execution)
                continue
            yield from _unfit("the input", message.input, entry.code.input_type)
            for carried in message.carried:
                yield from self.event(entry, carried.name, carried.input, None)

    def event(self, entry: Entry, name: str, body: Raw, execution: Execution | None) -> Iterator[MisfitError]:
        """Check a waiting event against the declared type and that of the wait that takes it next."""
        try:
            entry.admit(name, body)
        except EventRefused as refused:
            yield MisfitError(
                str(refused), payload=f"the event {name!r}", pointer=refused.pointer, reason=str(refused)
            )
            return
        wait = execution.wait_for(name) if execution is not None else None
        if wait is not None:
            yield from _unfit(f"the event {name!r}", body, wait.expected)

    def state(self, code: EntityCode, entity_id: str, state: Raw) -> MisfitError | None:
        """Check an entity's state, if its code declares a type."""
        return code.misfit_of(entity_id, state)

    def _input_of(self, name: str) -> Any:
        if name not in self._inputs:
            try:
                self._inputs[name] = _input_type(self._registry.activity(name))
            except FunctionNotFound:
                self._inputs[name] = Any  # other code reports missing functions
        return self._inputs[name]


def _input_type(activity: Activity) -> Any:
    """The type of the activity's input; Any if resources of a lifespan leave it open."""
    try:
        return plan_of(activity, _GIVEN).input_type
    except RegistrationError:
        return Any


def _unfit(whose: str, body: Raw, expected_type: Any) -> Iterator[MisfitError]:
    if not bytes(body) or bytes(body) == b"null":  # a function without an input gets none
        return
    try:
        payload.decode(body, expected_type)
    except PayloadError as error:
        found = misfit(whose, expected_type, error).error
        assert isinstance(found, MisfitError)
        yield found


__all__ = ["Kept", "Undecoded"]
