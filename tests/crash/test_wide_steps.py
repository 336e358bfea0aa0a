"""Steps that send more messages than one batch can process: their messages are sent in parts.

Limits are small, so that the steps here are as wide for their batches as a hundred thousand calls are for those
of a real engine. Each story is told again with the process dying after each of its turns.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest
from msgspec import DecodeError, structs

from perdure import App, EntityContext, OrchestrationContext
from perdure.engine.core.ports import Limits
from perdure.engine.core.row_ids import SEATS, Numbers
from perdure.model.damaged import flaw_in
from perdure.model.messages import EntityOperation, Outgoing, decode_message, encode_message, pack, unpack
from perdure.model.records import Batch
from perdure.store.memory import MemoryStore
from perdure.testing.faults import FaultPlan
from tests.crash.checks import verify
from tests.crash.world import World, manage, run_until_reply, start

SMALL = Limits(episodes=8, feeds=2, buffered_events=10_000)
FEW_PARTS = Limits(episodes=40, feeds=20, buffered_events=10_000)
WIDTH = 30
Context = OrchestrationContext
Flow = Generator[Any, Any, Any]
JOURNAL = "@journal@one"


def make_app() -> App:
    app = App("wide")

    @app.entity
    def journal(context: EntityContext) -> Any:
        lines = context.get_state(list)
        if context.operation_name == "write":
            lines.append(context.get_input())
            context.set_state(lines)
        return len(lines)

    @app.entity
    def crier(context: EntityContext) -> None:
        for number in range(context.get_input()):
            context.signal_entity(JOURNAL, "write", number)

    @app.orchestrator
    def leaf(context: Context, value: int) -> int:
        return value

    @app.orchestrator
    def sleeper(context: Context) -> Flow:
        yield context.wait_for_external_event("Never")

    @app.orchestrator
    def then_more(context: Context, count: int) -> Flow:
        for number in range(count):
            context.signal_entity(JOURNAL, "write", number)
        answer = yield context.call_entity(JOURNAL, "write", "called")
        context.signal_entity(JOURNAL, "write", "more")
        return answer

    @app.orchestrator
    async def generations(context: Context, left: list[int]) -> str:
        for number in left:
            context.signal_entity(JOURNAL, "write", number)
        if len(left) > 1:
            context.continue_as_new([left[0] + 100 * n for n in range(1, len(left) // 2 + 1)])
        return "done"

    @app.orchestrator
    async def locks(context: Context, name: str) -> str:
        async with context.lock(JOURNAL):
            for number in range(WIDTH):
                context.signal_entity(JOURNAL, "write", f"{name} {number}")
        return name

    @app.orchestrator
    def both_lock(context: Context) -> Flow:
        yield context.task_all([context.call_sub_orchestrator(locks, name) for name in "ab"])

    @app.orchestrator
    async def shouts(context: Context, count: int) -> None:
        context.signal_entity("@crier@one", "cry", count)

    @app.orchestrator
    def named_children(context: Context, count: int) -> Flow:
        calls = [context.call_sub_orchestrator(leaf, n, instance_id=f"child-{n}") for n in range(count)]
        return (yield context.task_all(calls))

    @app.orchestrator
    async def children(context: Context, count: int) -> list[int]:
        return await context.task_all([context.call_sub_orchestrator(leaf, n) for n in range(count)])

    @app.orchestrator
    def parents(context: Context, count: int) -> Flow:
        yield context.task_all(
            [context.call_sub_orchestrator(sleeper, instance_id=f"sleeper-{n}") for n in range(count)]
        )

    return app


APP = make_app()


def written(world: World) -> list[Any]:
    [stored] = world.inner.load([JOURNAL])
    return run_until_reply(world.client.read_entity_state(JOURNAL)).finish().entity_state if stored else []


def generation_lines() -> list[int]:
    lines, left = [], [*range(WIDTH)]
    while left:
        lines += left
        left = [left[0] + 100 * n for n in range(1, len(left) // 2 + 1)] if len(left) > 1 else []
    return lines


def by_holders(lines: list[Any]) -> bool:
    """Whether each holder of the lock wrote all its lines before the other."""
    ordered = [[f"{name} {number}" for number in range(WIDTH)] for name in "ab"]
    return lines in (ordered[0] + ordered[1], ordered[1] + ordered[0])


STORIES: dict[str, tuple[Any, Callable[[World], bool]]] = {
    "then_more": (WIDTH, lambda w: written(w) == [*range(WIDTH), "called", "more"]),
    "generations": ([*range(WIDTH)], lambda w: written(w) == generation_lines()),
    "both_lock": (None, lambda w: by_holders(written(w))),
    "shouts": (WIDTH, lambda w: written(w) == [*range(WIDTH)]),
    "named_children": (WIDTH, lambda w: w.status("wide").output == [*range(WIDTH)]),
    "children": (WIDTH, lambda w: w.status("wide").output == [*range(WIDTH)]),
}


@pytest.mark.parametrize("story", STORIES)
def test_nothing_is_lost_repeated_or_overtaken_when_the_process_dies(story: str) -> None:
    value, is_as_told = STORIES[story]
    turns = count_turns(story, value)
    assert turns >= 4, "the step went through in one batch"
    for dies_after in range(turns):
        world = begun(story, value)
        for _ in range(dies_after):
            world.turn()
        world.kill()
        world.ask(start(story, "wide", value, on_existing="return_existing"))
        world.settle()
        assert is_as_told(world), f"the process died after turn {dies_after}"
        verify(world)


def begun(story: str, value: Any) -> World:
    world = World(APP, MemoryStore("h"), limits=SMALL)
    run_until_reply(start(story, "wide", value).make(world.client, "op-wide"))
    return world


def count_turns(story: str, value: Any) -> int:
    world = begun(story, value)
    turns = 0
    while world.turn():
        turns += 1
    return turns


@pytest.mark.parametrize("story", ["then_more", "named_children", "children"])
def test_no_commit_has_a_row_for_each_message_of_a_wide_step(
    story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    width, most = 1_200, 0
    store = MemoryStore("h")
    commit = store.commit

    def counted(batch: Batch) -> None:
        nonlocal most
        most = max(most, len(batch.inbox_added))
        commit(batch)

    monkeypatch.setattr(store, "commit", counted)
    world = World(APP, store, limits=FEW_PARTS)
    world.start(story, "wide", width)
    assert world.status("wide").output
    verify(world)
    assert most < width / 4


def test_children_that_wait_in_parts_are_terminated_with_their_parent() -> None:
    world = World(APP, MemoryStore("h"), limits=SMALL)
    run_until_reply(start("parents", "wide", WIDTH).make(world.client, "op-1"))
    world.turn()
    waiting = run_until_reply(
        manage("terminate", "wide", "enough", recursive=True).make(world.client, "op-2")
    )
    world.settle()
    waiting.finish()
    assert {world.status(f"sleeper-{n}").runtime_status for n in range(WIDTH)} == {"Terminated"}
    assert not world.inner.poll(2**62, 2**62, 10).messages


def test_a_child_that_the_store_rejects_is_parked_and_the_others_run() -> None:
    world = World(APP, MemoryStore("h"), [FaultPlan(refused={"child-17"})], limits=SMALL)
    world.start("named_children", "wide", WIDTH)
    others = [world.status(f"child-{n}").runtime_status for n in range(WIDTH) if n != 17]
    assert set(others) == {"Completed"}
    world.store.plan.refused.clear()
    for parked in ("child-17", "wide"):
        if world.status(parked).runtime_status == "Suspended":
            world.manage("resume", parked)
    assert world.status("wide").output == [*range(WIDTH)]
    verify(world)


# ------------------------------------------------------------------------------------------------- the rows


def operations(count: int) -> list[EntityOperation]:
    return [EntityOperation(instance_id=JOURNAL, operation=f"write {n}") for n in range(count)]


def test_a_part_comes_back_from_its_row_as_it_was() -> None:
    part = pack("wide", operations(3))
    again = decode_message(encode_message(part))
    assert again == part
    assert unpack(part) == (*operations(3),)


def test_a_part_that_an_earlier_version_stored_can_be_read() -> None:
    row = (
        b'{"type":"Outgoing","count":2,"packed":"eAGLrlYqqSxIVbJScs0rySyp9C9ILUosyczPU9JRyoezrZTKizJLUhUMgKKZe'
        b'cUliXnJqfGZKUBdDln5pUV5iTkO+XmpSrU6JJlmSMC0WAACjzcG","instance_id":"wide"}'
    )
    part = decode_message(row)
    assert isinstance(part, Outgoing)
    assert unpack(part) == (*operations(2),)


@pytest.mark.parametrize("damage", [{"packed": b"x"}, {"count": 2}])
def test_a_damaged_part_is_found_when_its_row_is_read(damage: dict[str, Any]) -> None:
    part = structs.replace(pack("wide", operations(3)), **damage)
    with pytest.raises(DecodeError):
        unpack(part)
    columns = ("message_no", "instance_id", "visible_at", "message")
    assert "cannot be read" in flaw_in("inbox", columns, (7, "wide", 0, encode_message(part)))
    assert isinstance(part, Outgoing)


def test_reserved_numbers_follow_each_other_and_are_given_to_none_else() -> None:
    for incarnation in (0, 5):
        numbers = Numbers()
        numbers.opened(1, incarnation)
        numbers.advance(1_700_000_000_000_000)
        met = []
        for _ in range(40):
            met.append(numbers.take())
            last = numbers.reserve(1_001)
            met += range(last - 1_000, last + 1)
        assert met == sorted(set(met))
        assert not incarnation or {number >> 12 & SEATS - 1 for number in met} == {incarnation}
