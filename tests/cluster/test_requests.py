"""Who waits for an owner's answer is told once, whatever the store does meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from perdure.engine.cluster.pending_requests import Requests
from perdure.engine.core.ports import OWNER_ANSWERS_WITHIN, Asked
from perdure.errors import OutcomeUnknown, StoreError
from perdure.model.messages import Purge, RaiseEvent
from perdure.model.records import Batch, SeenRow
from perdure.store.memory import MemoryStore
from perdure.testing.conformance import instance


def stored(*seen: SeenRow) -> MemoryStore:
    store = MemoryStore("claims")
    store.open()
    store.commit(Batch(1, new_instances=[instance(1, "here")], seen=list(seen)))
    return store


def requests(*messages: Any) -> Requests:
    one = Requests()
    one.sent(
        Asked(f"r{no}", message, f"client {no}", OWNER_ANSWERS_WITHIN) for no, message in enumerate(messages)
    )
    return one


def event(instance_id: str = "here", operation_id: str = "") -> RaiseEvent:
    return RaiseEvent(instance_id=instance_id, name="Go", input=Raw(b"1"), operation_id=operation_id)


def test_a_store_that_fails_half_way_leaves_everyone_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(SeenRow("r0", "here", b'{"ok":7}', OWNER_ANSWERS_WITHIN * 9))
    asked = requests(event(), event())

    def fail(_: object) -> Any:
        raise StoreError("away")

    with monkeypatch.context() as patched:
        patched.setattr(store, "rows", fail)
        with pytest.raises(StoreError):
            asked.collect(store, OWNER_ANSWERS_WITHIN)
    assert asked.collect(store, OWNER_ANSWERS_WITHIN) == [("client 0", 7), ("client 1", None)]
    assert not asked


def test_what_is_durable_is_accepted_where_that_is_all_that_was_asked_for() -> None:
    asked = requests(event(), Purge(instance_id="here"), event("nowhere"))
    assert asked.collect(stored(), OWNER_ANSWERS_WITHIN - 1) == []
    [(_, accepted), (_, purged), (_, nowhere)] = asked.collect(stored(), OWNER_ANSWERS_WITHIN)
    assert accepted is None
    assert isinstance(purged, OutcomeUnknown) and isinstance(nowhere, OutcomeUnknown)


def test_a_repeat_is_told_what_was_said_first() -> None:
    first = SeenRow("op", "here", b'"first"', OWNER_ANSWERS_WITHIN * 9)
    assert requests(event(operation_id="op")).collect(stored(first), OWNER_ANSWERS_WITHIN) == [
        ("client 0", "first")
    ]
