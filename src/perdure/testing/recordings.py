"""Recordings: the history of one instance in a file, and its check against the current code.

A recording is JSON without any code: the instance, its orchestrator and version, and its events with their
bodies. `perdure export` writes it. A check runs the orchestrator through the recorded events; activities do not
run, and nothing is written. A worker does the same with every instance after a deployment, so the verdict is
the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from msgspec import Raw

from perdure.engine.functions.resolved import FunctionTable
from perdure.engine.interrupting import put_away
from perdure.errors import FunctionMissing, FunctionNotFound, MisfitError, NonDeterminismError, PayloadError
from perdure.model import events as ev
from perdure.model import payload
from perdure.model.entities import name_in
from perdure.model.messages import decode_message
from perdure.model.recorded import DAMAGED
from perdure.replay.decide import Execution
from perdure.replay.environment import Identity
from perdure.replay.state import fold
from perdure.testing.replaying import load_history
from perdure.testing.type_misfits import Kept, Undecoded
from perdure.triggers import with_built_ins

if TYPE_CHECKING:
    from perdure.app import App
    from perdure.engine.functions.resolved import Entry
    from perdure.model.instances import OrchestrationStatus
    from perdure.replay.rewinding import Episode

FORMAT: Final = "perdure-history/1"
Finding = Literal["agrees", "disagrees", "misfit", "missing", "unreadable"]


class Recording(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One execution of one instance. `events` are history as perdure keeps it, each with its `timestamp`.

    `held` are waiting events, and the input of an instance that has not started, as far as the exporter could
    see them.
    """

    format: str = FORMAT
    instance_id: str
    name: str
    version: str = ""
    execution_id: str = ""
    parent_instance_id: str | None = None
    runtime_status: str = ""
    events: list[dict[str, Any]] = []
    held: list[dict[str, Any]] = []  # messages that the instance has not processed
    damage: str = ""  # the damage of the stored rows, if any


@dataclass(frozen=True)
class Verdict:
    """Whether code and recording match; otherwise `detail` explains the mismatch, like the reason of a parked
    instance.
    """

    recording: Recording
    finding: Finding
    detail: str = ""

    @property
    def agrees(self) -> bool:
        return self.finding == "agrees"


def recording_of(status: OrchestrationStatus) -> Recording:
    """The recording of a status with history, results and input."""
    return Recording(
        instance_id=status.instance_id,
        name=status.name,
        version=status.version,
        execution_id=status.execution_id,
        parent_instance_id=status.parent_instance_id,
        runtime_status=status.runtime_status.value,
        events=status.history or [],
        damage=status.reason if status.reason.startswith(DAMAGED) else "",
    )


def read_recording(text: str | bytes) -> Recording:
    """Read a recording from the JSON of `perdure export` or `perdure history --json`, or of a status with its
    history.

    Raises PayloadError.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise PayloadError(f"this is not JSON: {error}") from error
    content: dict[str, Any] = dict(found) if isinstance(found, Mapping) else {"events": found}
    events = content.get("events") or content.get("history")
    if not isinstance(events, list) or not events or not all(isinstance(one, dict) for one in events):
        raise PayloadError(
            "it contains no history: export one with `perdure export ID`, or ask for a status with its "
            "history"
        )
    if str(content.get("format", FORMAT)).partition("/")[0] != FORMAT.partition("/")[0]:
        raise PayloadError(f"this is a {content['format']!r}, not a {FORMAT!r}")
    known = {
        **_told_by(events),
        **{name: value for name, value in content.items() if value},
        "events": events,
    }
    try:
        return msgspec.convert({"instanceId": "replayed", **known}, Recording)
    except msgspec.ValidationError as error:
        raise PayloadError(f"this is not a recording: {error}") from error


def _told_by(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The instance's data in the first event of a history."""
    first = next((one for one in events if one.get("type") == "ExecutionStarted"), {})
    parent = first.get("parent") or {}
    told = {
        "name": first.get("name"),
        "version": first.get("version"),
        "parentInstanceId": parent.get("instance_id"),
    }
    return {name: value for name, value in told.items() if value}


class Checker:
    """Checks recordings against one application."""

    def __init__(self, app: App) -> None:
        registry = with_built_ins(app.registry)
        self._functions = FunctionTable(registry, app.settings.versioning)
        self._undecoded = Undecoded(registry, self._functions)

    def check_entity(self, entity_id: str, state: Any) -> Verdict:
        """Check an entity's state against the type in the current code."""
        name = name_in(entity_id)
        entity = Recording(instance_id=entity_id, name=f"@{name}")
        code = self._functions.entity(name)
        if code is None:
            return Verdict(entity, "missing", f"no worker here has the entity {name!r}")
        return _judged(entity, code.misfit_of(entity_id, Raw(payload.encode(state))))

    def check(self, recording: Recording) -> Verdict:
        """Replay a recording, and decode the values that its code has not read yet. Runs no activity."""
        if recording.damage:
            return Verdict(recording, "unreadable", recording.damage)
        entry = self._functions.orchestrator(recording.name, recording.version)
        if entry is None:
            return Verdict(recording, "missing", self._functions.missing(recording.name, recording.version))
        try:
            episodes = load_history(recording.events)
        except (msgspec.MsgspecError, ValueError, KeyError) as error:
            return Verdict(recording, "unreadable", f"its history cannot be read by this version: {error}")
        if not any(isinstance(event, ev.ExecutionStarted) for _, events in episodes for event in events):
            first = next(self._undecoded.kept(entry, _messages(recording), None), None)
            return _judged(recording, first, "it has not begun")
        identity = Identity(
            recording.instance_id, recording.execution_id, recording.parent_instance_id, recording.version
        )
        execution = Execution(entry.code, identity, self._functions.environment)
        try:
            execution.replay(episodes)
            unread = self._unread(recording, episodes, entry, execution)
        except MisfitError as error:
            return _judged(recording, error)
        except NonDeterminismError as error:
            return Verdict(recording, "disagrees", str(error))
        except (FunctionMissing, FunctionNotFound) as error:
            return Verdict(recording, "missing", str(error))
        finally:
            put_away(execution)
        return _judged(recording, unread)

    def _unread(
        self, recording: Recording, episodes: list[Episode], entry: Entry, execution: Execution
    ) -> MisfitError | None:
        """The first misfit among the values that the code will read."""
        state = fold(episodes)
        events = [event for _, group in episodes for event in group]
        found = [
            *self._undecoded.asked_for(events, state),
            *(
                unfit
                for _, event in state.buffered
                for unfit in self._undecoded.event(entry, event.name, event.input, None)
            ),
            *self._undecoded.kept(entry, _messages(recording), execution),
        ]
        return found[0] if found else None


def _judged(recording: Recording, unfit: MisfitError | None, otherwise: str = "") -> Verdict:
    return (
        Verdict(recording, "agrees", otherwise) if unfit is None else Verdict(recording, "misfit", str(unfit))
    )


def _messages(recording: Recording) -> list[Kept]:
    """The waiting messages with inputs or events; the types of others (results) come from the code."""
    messages = [decode_message(msgspec.json.encode(message)) for message in recording.held]
    return [message for message in messages if isinstance(message, Kept)]


def check_recording(recording: Recording | str | bytes, app: App) -> Verdict:
    """Check whether an application's current code repeats the recorded instance.

    Parameters:
        recording: a `Recording`, or the JSON for `read_recording`.
        app: the application.

    Raises PayloadError for invalid JSON of a recording.
    """
    read = recording if isinstance(recording, Recording) else read_recording(recording)
    return Checker(app).check(read)


__all__ = [
    "FORMAT",
    "Checker",
    "Recording",
    "Verdict",
    "check_recording",
    "read_recording",
    "recording_of",
]
