"""The commit: one batch, one transaction, a few statements per table. This is the hot path.

The order inside is part of the port. Messages leave the inbox first, and only when consumed: they are addressed
to ids, not to instances. Then purges free ids that new instances of the same batch may take; then rows are
inserted, old executions deleted, and waits closed before others open. Nothing here reads: the number of rows
that a statement changed shows whether the expected rows exist. A different number means that another engine has
changed them.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from perdure.errors import CommitRefused, FenceLost
from perdure.model.ring import KEPT, oldest_kept
from perdure.store.purging import surviving
from perdure.store.sqlite.statements import Repeated, blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import apsw

    from perdure.model.records import Batch, InstanceUpdate

ALL_WAITS: Final = -1
DROPPED_KEPT: Final = 30 * 24 * 3600 * 1_000_000
AUDIT_KEPT: Final = 365 * 24 * 3600 * 1_000_000
EXPIRY_EVERY: Final = 60_000_000
_EXPIRED_AT_ONCE: Final = 256
_PURGES: Final = (
    "purge_instances",
    "purge_history",
    "purge_payloads",
    "purge_state",
    "purge_waits",
    "purge_activities",
)
_HISTORY: Final = {  # statements in their order, each with the batch's field of its rows
    "pin_versions": "versions",
    "insert_history": "history",
    "insert_payloads": "bodies",
    "put_custom_status": "custom_status",
    "put_entity_state": "entity_states",
    "remove_history": "executions_removed",
    "remove_payloads": "executions_removed",
}
_MESSAGES: Final = {
    "open_waits": "waits_opened",
    "add_messages": "inbox_added",
    "drop_messages": "dropped",
    "put_keys": "keys",
    "use_keys": "keys_used",
    "add_audit": "audit",
}
_FOR_ONE: Final = {"update_instances": "update_instance", "move_instances": "move_instance"}
_rows_of_history: Final = attrgetter(*_HISTORY.values())
_rows_of_messages: Final = attrgetter(*_MESSAGES.values())


def _of_an_episode(row: InstanceUpdate) -> tuple[int, int, int, int, bytes]:
    """The columns that every episode changes."""
    return row.instance_no, row.execution_no, row.episodes, row.updated_at, row.head


class Committer:
    """Writes batches on one connection, for one hub. Bound to the loop's thread."""

    def __init__(self, connection: apsw.Connection, hub_no: int) -> None:
        self._execute = connection.cursor().execute
        self._total_changes = connection.total_changes
        self._single: dict[str, str] = {}
        self._repeated: dict[str, Repeated] = {}
        for name, block in blocks("commit.sql").items():
            text = block.replace("{hub}", str(hub_no))
            if "[" in text:
                self._repeated[name] = Repeated(text)
            else:
                self._single[name] = text
        for many, one in _FOR_ONE.items():
            self._repeated[many].use_for_one(self._single.pop(one))
        self._put_head = self._single["put_head"]
        self._head_no: Any = None  # of the engine's row in the ring, once it is durable
        self.next_expiry = 0
        self.stage = ""  # the current statement, for error messages

    def write(self, batch: Batch) -> None:
        """Everything between `begin` and `commit`."""
        self.stage = ""
        if batch.purged:
            batch = surviving(batch)
        self._take_messages(batch)
        self._purge(batch)
        self._write_instances(batch)
        self._write_all(_HISTORY, _rows_of_history(batch))
        self._close_waits(batch)
        self._write_all(_MESSAGES, _rows_of_messages(batch))
        if batch.task_updates or batch.task_moves:
            self._change_tasks(batch)
        self._remember(batch)
        if batch.ring:
            self._write_ring(batch)
        if batch.at >= self.next_expiry:
            self._expire(batch.at)

    def _write_all(self, names: Iterable[str], all_rows: Iterable[Sequence[tuple[Any, ...]]]) -> None:
        for name, rows in zip(names, all_rows, strict=True):
            if rows:
                self._write(name, rows)

    def _write(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            self.stage = name
            self._repeated[name].rows(self._execute, rows)

    def _take_messages(self, batch: Batch) -> None:
        if batch.inbox_held:
            self._demand("hold_messages", list(dict.fromkeys(batch.inbox_held)), "messages to hold")
        if batch.inbox_removed:
            self._demand("remove_messages", batch.inbox_removed, "consumed messages")

    def _demand(self, name: str, numbers: Sequence[Any], what: str) -> None:
        before = self._total_changes()
        self._repeated[name].values(self._execute, numbers)
        found = self._total_changes() - before
        if found != len(numbers):
            raise FenceLost(
                f"of {len(numbers)} {what} the store has {found}: another engine has taken the others"
            )

    def _purge(self, batch: Batch) -> None:
        if batch.purged:
            for name in _PURGES:
                self._repeated[name].values(self._execute, batch.purged)
        if batch.forgotten:
            self._repeated["forget_dropped"].values(self._execute, batch.forgotten)

    def _write_instances(self, batch: Batch) -> None:
        self._write("insert_instances", batch.new_instances)
        if not batch.updates:
            return
        # Several updates of one instance in a batch: the last one wins.
        updates = {row[0]: row for row in batch.updates}
        moved = updates if batch.moved is None else batch.moved
        before = self._total_changes()
        self._write("move_instances", [row for no, row in updates.items() if no in moved])
        self._write(
            "update_instances", [_of_an_episode(row) for no, row in updates.items() if no not in moved]
        )
        found = self._total_changes() - before
        if found != len(updates):
            raise FenceLost(
                f"of {len(updates)} instances to update {found} exist: another engine purged the others"
            )

    def _change_tasks(self, batch: Batch) -> None:
        """Several changes of one task in a batch: the last one wins."""
        self._write("update_tasks", list({row[:2]: row for row in batch.task_updates}.values()))
        self._write("move_tasks", list({row[:2]: row for row in batch.task_moves}.values()))

    def _close_waits(self, batch: Batch) -> None:
        if not batch.waits_closed:
            return
        entirely = [instance_no for instance_no, wait_id in batch.waits_closed if wait_id == ALL_WAITS]
        if entirely:
            self._repeated["close_all_waits"].values(self._execute, entirely)
        self._write("close_waits", [pair for pair in batch.waits_closed if pair[1] != ALL_WAITS])

    def _remember(self, batch: Batch) -> None:
        if not batch.seen:
            return
        self.stage = "remember"
        before = self._total_changes()
        self._repeated["remember"].rows(self._execute, batch.seen, after=(batch.at,))
        if self._total_changes() - before != len(batch.seen):
            raise CommitRefused("an operation id in `seen` was accepted before and its answer still counts")

    def _write_ring(self, batch: Batch) -> None:
        if batch.heads_removed:
            self._demand("remove_heads", batch.heads_removed, "heads of the ring")
        *others, head = batch.ring
        if self._head_no is None:
            found = self._execute(self._single["find_head"], (head[0],)).fetchall()
            if not found:
                self._write("put_ring", batch.ring)
                return
            self._head_no = found[0][0]
        if others:
            self._write("put_ring", others)
        self.stage = "put_head"
        self._execute(self._put_head, (head[4], self._head_no))

    def _expire(self, at: int) -> None:
        """Delete expired rows, a bounded number at a time and once a minute, unless there are more."""
        before = self._total_changes()
        self._execute(self._single["expire_seen"], (at, _EXPIRED_AT_ONCE))
        self._execute(self._single["expire_dropped"], (at - DROPPED_KEPT, _EXPIRED_AT_ONCE))
        self._execute(self._single["expire_audit"], (at - AUDIT_KEPT, _EXPIRED_AT_ONCE))
        for resolution in KEPT:
            self._execute(self._single["expire_ring"], (resolution, oldest_kept(at, resolution)))
        is_done = self._total_changes() - before < _EXPIRED_AT_ONCE
        self.next_expiry = at + EXPIRY_EVERY if is_done else at
