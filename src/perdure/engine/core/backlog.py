"""The backlog: messages that wait for their instance's turn, from one batch to the next.

An instance that has reached its limit in a batch keeps its other messages in a line. A batch takes one message
of each line in turn, besides new messages, so an instance with a hundred thousand results delays the others by
one message at a time. Waiting messages are not touched until their turn: the cost of a batch depends on the
messages it handles, not on those it leaves. The messages of one instance keep their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perdure.engine.core.envelope import Envelope


class Lines:
    """The waiting messages of a hub, by instance. `recent` are the messages added in the current batch.

    `by_instance` and `turns` are for looking only: each message of a batch asks whether they hold anything.
    """

    __slots__ = ("_taking", "by_instance", "recent", "rows", "turns")

    def __init__(self) -> None:
        self.by_instance: dict[
            str, Envelope | deque[Envelope]
        ] = {}  # most hold one message, and a deque takes 600 bytes
        self.turns: deque[str] = deque()  # the instances in turn
        self._taking: set[str] = set()  # the instances in their turn, which are not in `turns`
        self.recent: list[Envelope] = []
        self.rows: set[int] = set()  # numbers of the inbox rows in the lines, as of the last seal

    def __bool__(self) -> bool:
        return bool(self.by_instance)

    def __contains__(self, instance_id: str) -> bool:
        return instance_id in self.by_instance

    def __iter__(self) -> Iterator[Envelope]:
        """All waiting messages, line by line."""
        for line in self.by_instance.values():
            if isinstance(line, deque):
                yield from line
            else:
                yield line

    def of(self, instance_id: str) -> Iterable[Envelope]:
        """The waiting messages of one instance, in order."""
        line = self.by_instance.get(instance_id, ())
        return line if isinstance(line, deque | tuple) else (line,)

    def append(self, envelope: Envelope) -> None:
        """Add the message behind the others of its instance."""
        instance_id = envelope.message.instance_id
        line = self.by_instance.get(instance_id)
        if line is None:
            self.by_instance[instance_id] = envelope
            if instance_id not in self._taking:
                self.turns.append(instance_id)
        elif isinstance(line, deque):
            line.append(envelope)
        else:
            self.by_instance[instance_id] = deque((line, envelope))
        self._joined(envelope)

    def put_first(self, envelope: Envelope) -> None:
        """Add the message in front of the others of its instance."""
        instance_id = envelope.message.instance_id
        line = self.by_instance.get(instance_id)
        if line is None:
            self.append(envelope)
            return
        if isinstance(line, deque):
            line.appendleft(envelope)
        else:
            self.by_instance[instance_id] = deque((envelope, line))
        self._joined(envelope)

    def _joined(self, envelope: Envelope) -> None:
        envelope.waits = True
        self.recent.append(envelope)

    def take(self) -> Envelope:
        """The first message of the next line. `end_turn` follows after it is handled."""
        instance_id = self.turns.popleft()
        self._taking.add(instance_id)
        line = self.by_instance[instance_id]
        if isinstance(line, deque):
            envelope = line.popleft()
            if not line:
                del self.by_instance[instance_id]
        else:
            envelope = line
            del self.by_instance[instance_id]
        envelope.waits = False
        if envelope.row_no:
            self.rows.discard(envelope.row_no)
        return envelope

    def end_turn(self, instance_id: str) -> None:
        """End the turn of an instance: its next message comes after those of the others."""
        if instance_id in self._taking:
            self._taking.discard(instance_id)
            if instance_id in self.by_instance:
                self.turns.append(instance_id)

    def take_all(self) -> list[Envelope]:
        """Remove and return all waiting messages, each line in order."""
        found = list(self)
        for envelope in found:
            envelope.waits = False
        self.by_instance.clear()
        self.turns.clear()
        self._taking.clear()
        self.recent.clear()
        self.rows.clear()
        return found

    def drop_where(self, is_meant: Callable[[Envelope], bool]) -> None:
        """Drop matching messages, between two batches."""
        kept = [envelope for envelope in self.take_all() if not is_meant(envelope)]
        self.extend(kept)

    def extend(self, envelopes: Iterable[Envelope]) -> None:
        """Add messages behind the others, between two batches."""
        for envelope in envelopes:
            self.append(envelope)
        self.close_batch()

    def close_batch(self) -> None:
        """After a durable batch: its new messages are no longer recent."""
        if not self.recent and not self._taking:
            return
        for envelope in self.recent:
            if envelope.waits:
                envelope.counted = envelope.internal = False
                if envelope.row_no:
                    self.rows.add(envelope.row_no)
        self.recent.clear()
        for instance_id in list(self._taking):
            self.end_turn(instance_id)


__all__ = ["Lines"]
