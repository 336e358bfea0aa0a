"""Rows beside the batches: written soon, written once, and never the reason why a batch fails."""

import asyncio
import time

import perdure as df
from perdure.engine.core.audit import NOTE, AuditMemo, AuditNote
from perdure.errors import InstanceNotFound
from perdure.model.records import AuditFilter, AuditRow
from tests.http.conftest import make_app


def row(n: int = 0) -> AuditRow:
    return AuditRow(n, "tester", "", "test", "", "", "ok")


async def test_a_memo_is_written_at_once_whatever_the_loop_is_doing() -> None:
    """A nudge that is taken together with other messages must not be the last that is heard of it."""
    async with make_app().running(store="memory:") as client:
        began = time.monotonic()
        for n in range(200):
            starting = asyncio.ensure_future(client.start_new("echo", f"e-{n}"))
            await client.gateway.record(AuditMemo(audit=[row(client.gateway.now())]))
            await starting

        assert time.monotonic() - began < 60
        found = client.gateway.store.audit(AuditFilter(top=500))
        assert len(found) == 200


async def test_an_operation_and_its_note_are_one_transaction(local: df.Client) -> None:
    note = AuditNote("tester", "10.0.0.1", "start", "echo")
    NOTE.set(note)
    try:
        await local.start_new("echo", "e-1")
    finally:
        NOTE.set(None)
    assert note.is_taken
    [(_, found)] = local.gateway.store.audit(AuditFilter())
    assert (found.who, found.operation, found.instance_id, found.outcome) == ("tester", "start", "e-1", "ok")


async def test_what_was_refused_leaves_no_note_of_success(local: df.Client) -> None:
    NOTE.set(AuditNote("tester", "", "terminate"))
    try:
        await local.terminate("nobody")
    except InstanceNotFound:
        pass
    finally:
        NOTE.set(None)
    assert local.gateway.store.audit(AuditFilter()) == []


async def test_a_strangers_text_is_made_harmless() -> None:
    hostile = AuditNote("a\x1b[31m\nb\x00", "1.2.3.4\r\n", "start", "\ud800" + "x" * 5_000)

    found = hostile.row(0, "id\u202e")

    assert all(part.isprintable() for part in (found.who, found.address, found.detail, found.instance_id))
    assert len(found.detail) == 1_000
    found.detail.encode()
