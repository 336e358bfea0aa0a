"""From episodes that are durable to the spans that end with them.

An exporter gets the episodes of an execution one by one. It may lack some: after a takeover, a crash, when its memory
or its queue was full. Then it reads them from history, without exporting their spans: another worker has done so, or
they are lost, and `perdure trace` has them. No span is exported twice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from perdure.engine.core.tracing import Recorded, TracedEpisode
from perdure.model import payload
from perdure.model.events import Ending, HistoryEvent
from perdure.telemetry.spans import ExecutionSpans, Span, Subject

READERS: Final = 10_000
"""The most executions whose state is kept; of others the history is read again."""

Histories = Callable[[int, str], Recorded]
"""Reads the rows of an execution, by the number of its instance and its id."""


class Readers:
    """The executions of a hub that are being exported. For one thread.

    Parameters:
        hub: the name of the hub, for the attributes.
        histories: reads an execution that is not known.
        messages: whether spans contain the text of errors.
        most: how many executions are kept.
    """

    def __init__(self, hub: str, histories: Histories, *, messages: bool = True, most: int = READERS) -> None:
        self._hub = hub
        self._histories = histories
        self._messages = messages
        self._most = most
        self._known: OrderedDict[str, _Reader] = OrderedDict()

    def ended_by(self, part: TracedEpisode) -> list[Span]:
        """The spans that an episode ends."""
        reader = self._known.pop(part.execution_id, None) or _Reader(self._subject_of(part))
        if reader.count < part.number:
            # No span twice: another worker has exported those of the missing rows, or they are lost.
            reader.skip(self._before(part)[reader.count : part.number])
        ended: list[Span] = []
        is_last = any(isinstance(event, Ending) for event in part.events)
        if reader.count == part.number:
            if is_last:
                reader.replays = part.instance.replays
            ended = reader.read(part.at, part.events)
        if not is_last:  # the instance may have gone on, and finished, in the meantime
            self._known[part.execution_id] = reader
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return ended

    def _before(self, part: TracedEpisode) -> Recorded:
        if part.before is not None:
            return part.before
        return self._histories(part.instance.no, part.execution_id)

    def _subject_of(self, part: TracedEpisode) -> Subject:
        instance = part.instance
        return Subject(
            instance_id=instance.instance_id,
            execution_id=part.execution_id,
            name=instance.name,
            version=instance.version,
            hub=self._hub,
            parent=instance.parent,
            tags=payload.decode(instance.tags.encode()) if instance.tags else {},
            messages=self._messages,
        )


class _Reader:
    """The spans of one execution so far, and how many of its rows were read."""

    def __init__(self, subject: Subject) -> None:
        self._spans = ExecutionSpans(subject)
        self.count = 0

    @property
    def replays(self) -> int | None:
        return self._spans.subject.replays

    @replays.setter
    def replays(self, count: int | None) -> None:
        self._spans.subject = msgspec.structs.replace(self._spans.subject, replays=count)

    def read(self, at: int, events: Iterable[HistoryEvent]) -> list[Span]:
        self.count += 1
        return self._spans.read(at, events)

    def skip(self, rows: Recorded) -> None:
        """Read rows whose spans were exported before."""
        for at, events in rows:
            self.read(at, events)


__all__ = ["Histories", "Readers"]
