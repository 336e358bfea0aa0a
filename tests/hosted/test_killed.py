"""The traps, with the process killed at each commit: before it takes effect, and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from perdure.hosts.azure_functions import self_check
from perdure.hosts.azure_functions.application import load
from perdure.store.memory import MemoryStore
from perdure.store.port import Store
from perdure.testing.faults import Fault, FaultPlan
from tests.crash.sweep import on_files
from tests.crash.world import World
from tests.hosted.programs import APPS, COMPLETED, Program
from tests.hosted.test_fallback import ITS_OWN_WAY

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
MOST_TIMERS = 60


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def make_store(request: pytest.FixtureRequest) -> Iterator[Callable[[], Store]]:
    if request.param == "memory":
        yield lambda: MemoryStore("crash")
        return
    with on_files() as make:
        yield make


def play(program: Program, store: Store, *plans: FaultPlan) -> tuple[World, Any]:
    """Start a program, raise its events, and let its timers pass. Each request is repeated until it is answered."""
    world = World(load(APPS / "traps").app, store, list(plans), evict=True)
    try:
        world.start(program.name, program.name, program.input)
        for name, data in program.events:
            world.raise_event(program.name, name, data)
        return world, _finished(world, program.name)
    finally:
        world.end()


def _finished(world: World, instance_id: str) -> Any:
    """The status at the end; time goes from each of the instance's timers to the next."""
    for _ in range(MOST_TIMERS):
        world.settle()
        status = world.status(instance_id)
        stored = world.inner.get(instance_id)
        if status.is_finished or stored is None or stored.row.due_at is None:
            return status
        world.clock.move(max(stored.row.due_at, world.clock.now() + 1))
    raise AssertionError(f"{instance_id} has more than {MOST_TIMERS} timers")


def as_told(program: Program, output: Any) -> Any:
    """The output without the repeats of a body whose result had not been committed."""
    if program.name == "retried":
        runs, *others = output
        return [min(runs, program.output[0]), *others]
    return output


def kill_at_each_commit(program: Program, make_store: Callable[[], Store]) -> None:
    world, undisturbed = play(program, make_store())
    assert (undisturbed.runtime_status.value, undisturbed.output) == ("Completed", program.output)

    for number, verb in enumerate(world.calls, start=1):
        for fault in (Fault.CRASH_BEFORE, Fault.CRASH_AFTER) if verb == "commit" else ():
            killed, status = play(program, make_store(), FaultPlan({number: fault}))
            assert len(killed.lives) == 2
            assert as_told(program, status.output) == program.output, (
                f"killed at call {number}, which {fault}"
            )


@pytest.mark.parametrize("program", COMPLETED, ids=lambda one: one.name)
def test_a_program_comes_to_the_same_wherever_its_process_is_killed(
    program: Program, make_store: Callable[[], Store]
) -> None:
    kill_at_each_commit(program, make_store)


@pytest.mark.parametrize(
    "program", [one for one in COMPLETED if one.name not in ITS_OWN_WAY], ids=lambda one: one.name
)
def test_so_it_does_by_the_protocol(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "finding", lambda: "it is from the future")
    kill_at_each_commit(program, lambda: MemoryStore("crash"))
