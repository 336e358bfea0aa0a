"""Rows that are not what was written: code is never brought back from them, and everybody is told which row it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import perdure as df
from perdure.engine.upkeep.verification import verify
from perdure.store import open_store
from perdure.store.encryption import Encryption, new_key
from perdure.store.transfer import transfer
from perdure.testing import check_recording, environment, recording_of

ENCRYPTION = Encryption({"k1": new_key()})
LARGE = 20_000
STYLES = ("yield", "async")


def shop() -> df.App:
    app = df.App("shop")

    @app.activity
    def price(n: int) -> int:
        return 100 + n

    @app.activity
    def describe(n: int) -> str:
        return "d" * LARGE

    @app.orchestrator(name="yield")
    def order_yield(context):
        first = yield context.call_activity(price, 1)
        text = yield context.call_activity(describe, 2)
        second = yield context.call_activity(price, 3)
        return [first, len(text), second, (yield context.wait_for_external_event("Paid"))]

    @app.orchestrator(name="async")
    async def order_async(context) -> Any:
        first = await context.call_activity(price, 1)
        text = await context.call_activity(describe, 2)
        second = await context.call_activity(price, 3)
        return [first, len(text), second, await context.wait_for_external_event("Paid")]

    return app


@dataclass
class Damage:
    """What becomes of one row on its way: `column` of the row of `table` that `place` (from the end) selects."""

    table: str
    place: int
    column: int | None  # None: the row is lost
    change: Callable[[Any], Any] = lambda value: value
    said: str = "is damaged"


INSTANCE, HISTORY, PAYLOADS = "instances", "history", "payloads"
DAMAGES = {
    "a result": Damage(HISTORY, 1, 4, lambda events: events.replace(b"101", b"100")),
    "a time": Damage(HISTORY, 1, 3, lambda at: at + 1),
    "a digest": Damage(HISTORY, 1, 5, lambda digest: bytes(32)),
    "a hash": Damage(HISTORY, 1, 6, lambda digest: bytes(32)),
    "no events": Damage(HISTORY, 1, 4, lambda events: b"[]"),
    "a first row": Damage(HISTORY, 0, 4, lambda events: events.replace(b'"input":1', b'"input":2')),
    "a row lost": Damage(HISTORY, 1, None, said="is missing"),
    "the newest row lost": Damage(HISTORY, -1, None, said="but history has"),
    "a large body": Damage(
        PAYLOADS, 0, 4, lambda body: body.replace(b"d", b"e"), said="in the table payloads"
    ),
    "a large body lost": Damage(PAYLOADS, 0, None, said="is missing from the table payloads"),
    "the name": Damage(
        INSTANCE, 0, 4, lambda name: "async" if name == "yield" else "yield", said="has a different name"
    ),
    "the version": Damage(INSTANCE, 0, 5, lambda version: "7", said="has a different version"),
    "the head": Damage(INSTANCE, 0, 20, lambda head: bytes(32), said="or its newest row differs"),
}


class Damaging:
    """A hub on its way to another store, one row of which is damaged."""

    def __init__(self, inner: Any, damage: Damage) -> None:
        self._inner, self._damage = inner, damage

    def sizes(self) -> dict[str, int]:
        sizes = dict(self._inner.sizes())
        sizes[self._damage.table] -= self._damage.column is None
        return sizes

    def export(self, table: str, after: Any, limit: int) -> Any:
        rows, following = self._inner.export(table, after, limit)
        if table == self._damage.table and rows:
            rows = list(rows)
            place = self._damage.place % len(rows)
            if self._damage.column is None:
                del rows[place]
            else:
                rows[place] = _changed(rows[place], self._damage)
        return rows, following


def _changed(row: Any, damage: Damage) -> Any:
    values = list(row)
    assert damage.column is not None
    before = values[damage.column]
    values[damage.column] = damage.change(before)
    assert values[damage.column] != before
    return tuple(values)


@pytest.fixture(params=["memory", "sqlite", "encrypted", "postgres"])
def goal(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "memory":
        return open_store("memory:", "shop", None)
    url = (
        request.getfixturevalue("newest_url")
        if request.param == "postgres"
        else f"sqlite:///{tmp_path}/goal.db"
    )
    return open_store(url, "shop", ENCRYPTION if request.param == "encrypted" else None)


async def waiting_order(path: Path, style: str) -> Any:
    """A store with one order that waits to be paid."""
    store = open_store(f"sqlite:///{path}/first.db", "shop", None)
    async with environment(shop(), store=store) as env:
        await env.client.start_new(style, "order")
        await env.settled()
    return open_store(f"sqlite:///{path}/first.db", "shop", None)


def move(source: Any, goal: Any, damage: Damage | None) -> None:
    source.open()
    goal.open()
    transfer(source if damage is None else Damaging(source, damage), goal)
    source.close()
    goal.close_reader()
    goal.close()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("which", DAMAGES)
async def test_code_is_not_brought_back_from_a_damaged_row(
    which: str, style: str, goal: Any, tmp_path: Path
) -> None:
    damage = DAMAGES[which]
    move(await waiting_order(tmp_path, style), goal, damage)
    async with environment(shop(), store=goal) as env:
        await env.client.raise_event("order", "Paid", "cash")
        await env.settled()
        found = await env.client.get_status("order")
        await env.client.resume("order")
        await env.settled()
        again = await env.client.get_status("order")
        other = await env.client.start_new(style)
        await env.client.raise_event(other, "Paid", "cash")
        fine = await env.client.wait_for_completion(other)
        problems = await asyncio.to_thread(verify, env.store)
        await env.client.terminate("order", "damaged")
        gone = await env.client.purge_instance_history("order")

    assert found.runtime_status == again.runtime_status == "Suspended"
    assert found.reason.startswith("damaged: ") and damage.said in found.reason, found.reason
    assert again.reason.startswith("damaged: ")
    assert "PDR-076" in found.waiting_for
    assert fine.output == [101, LARGE, 103, "cash"]
    assert [one for one in problems.problems if "order" in one] or which == "a large body lost"
    assert gone == 1


@pytest.mark.parametrize("style", STYLES)
async def test_a_sound_hub_goes_on(style: str, goal: Any, tmp_path: Path) -> None:
    move(await waiting_order(tmp_path, style), goal, None)
    async with environment(shop(), store=goal) as env:
        await env.client.raise_event("order", "Paid", "cash")
        status = await env.client.wait_for_completion("order")

    assert status.output == [101, LARGE, 103, "cash"]
    assert status.reason == ""


@pytest.mark.parametrize(
    "which", [which for which in DAMAGES if DAMAGES[which].place != -1 and which != "the head"]
)
async def test_a_status_an_export_and_a_replay_tell_of_damage_before_a_worker_comes_across_it(
    which: str, goal: Any, tmp_path: Path
) -> None:
    if which == "a large body lost":
        pytest.skip("a body that is gone may have been erased, as far as a reader knows")
    move(await waiting_order(tmp_path, "async"), goal, DAMAGES[which])
    async with environment(shop(), store=goal) as env:
        status = await env.client.get_status("order", True, True, True)
    recording = recording_of(status)
    verdict = check_recording(recording, shop())

    assert status.runtime_status == "Running"
    assert status.reason.startswith("damaged: ") and DAMAGES[which].said in status.reason
    assert recording.events, "what is there can be taken along"
    assert (verdict.finding, verdict.detail) == ("unreadable", status.reason)


async def test_what_was_mended_goes_on_when_it_is_resumed(tmp_path: Path) -> None:
    source = await waiting_order(tmp_path, "async")
    hurt, mended = (open_store("memory:", "shop", None) for _ in range(2))
    move(source, hurt, DAMAGES["a result"])
    async with environment(shop(), store=hurt) as env:
        await env.client.raise_event("order", "Paid", "cash")
        await env.settled()
    back = Damage(HISTORY, 1, 4, lambda events: events.replace(b"100", b"101"))
    move(hurt, mended, back)
    async with environment(shop(), store=mended) as env:
        await env.settled()
        before = await env.client.get_status("order")
        await env.client.resume("order")
        status = await env.client.wait_for_completion("order")

    assert before.reason.startswith("damaged: "), "it is not tried again by itself"
    assert status.output == [101, LARGE, 103, "cash"]


async def test_a_damaged_child_tells_its_rewound_parent(tmp_path: Path) -> None:
    app = df.App("shop")

    @app.orchestrator
    async def child(context) -> int:
        return 7

    @app.orchestrator
    async def parent(context) -> int:
        first = await context.call_sub_orchestrator(child, None, "child")
        await context.call_activity("fragile")
        return first

    broken = [True]

    @app.activity
    def fragile() -> None:
        if broken[0]:
            raise ValueError("broken")

    async with environment(app, store=f"sqlite:///{tmp_path}/first.db") as env:
        await env.run(parent, None, "parent")
    hurt = open_store("memory:", "shop", None)
    source = open_store(f"sqlite:///{tmp_path}/first.db", "shop", None)
    move(source, hurt, Damage(HISTORY, -1, 4, lambda events: events.replace(b'"output":7', b'"output":8')))
    broken[0] = False
    async with environment(app, store=hurt) as env:
        await env.client.rewind("parent")
        status = await env.client.wait_for_completion("parent")

    assert status.output == 7, "the parent has the child's answer in its own history"
