"""Breaking a scenario at every call of the store, in every way: the driver behind `test_every_step`.

The idea is Netherite's `IncrementSuccessRuns`: run once and count the calls of the store; then run again and
break the first call, again and break the second, and so on. Whatever broke, the outside must not be able to
tell: same answers, same instances, same logical calls, and nothing amiss in the store.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

from perdure import App
from perdure.engine.core.ports import Limits
from perdure.store.memory import MemoryStore
from perdure.store.port import Store
from perdure.store.sqlite import wal
from perdure.store.sqlite.store import SqliteStore
from perdure.testing.faults import Fault, FaultPlan
from tests.crash.checks import picture, verify
from tests.crash.scenarios import SCENARIOS, Scenario, make_app
from tests.crash.world import ROOMY, TINY, WORLDS, World

APPS = {style: make_app(style) for style in ("yield", "await")}
MakeStore = Callable[[], Store]


@dataclass(frozen=True)
class Setting:
    """How the engine runs: the style of the orchestrators, and how soon it stops, forgets and turns round."""

    style: str = "yield"
    limits: Limits = field(default=ROOMY)
    evict: bool = False
    lifo: bool = False

    @property
    def app(self) -> App:
        return APPS[self.style]

    def world(self, store: Store, *plans: FaultPlan) -> World:
        return World(self.app, store, list(plans), limits=self.limits, evict=self.evict, lifo=self.lifo)


PLAIN = Setting()
CRAMPED = Setting("await", TINY, evict=True, lifo=True)


def in_memory() -> Store:
    return MemoryStore("crash")


@contextmanager
def on_files() -> Iterator[MakeStore]:
    """A new database for every run, copied from an empty one, on a disk of memory where there is one.

    No test can tell a durable disk from this one: processes die here, not machines.
    """
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as name, mock.patch.object(wal, "_ZEROS", 0):
        directory, numbers = Path(name), count()
        template = SqliteStore(str(directory / "template.db"), "crash")
        template.open()
        template.close()

        def make() -> Store:
            number = next(numbers)
            for old in directory.glob(f"{number - 1}.db*"):
                old.unlink()
            shutil.copy(template.location, directory / f"{number}.db")
            return SqliteStore(str(directory / f"{number}.db"), "crash")

        yield make


def play(
    scenario: Scenario, setting: Setting, store: Store, *plans: FaultPlan
) -> tuple[World, dict[str, Any]]:
    """Run to the end, demand the invariants, and return what the outside sees."""
    world = setting.world(store, *plans)
    try:
        scenario.script(world)
        world.settle()
        verify(world)
        return world, picture(world)
    finally:
        world.end()


def ways(verb: str) -> Iterator[Fault]:
    """What can happen to a call of this kind. A read that failed and a read whose answer was lost are one."""
    yield Fault.FAIL
    yield Fault.CRASH_BEFORE
    if verb in ("commit", "open", "reopen"):
        yield Fault.LOSE_ANSWER
        yield Fault.CRASH_AFTER
    if verb == "commit":
        yield Fault.FULL


def sweep(name: str, setting: Setting, make_store: MakeStore, every: int = 1) -> int:
    """Break each call (or every so many-th) in each way. Returns how many runs that took."""
    scenario = SCENARIOS[name]
    world, expected = play(scenario, setting, make_store())
    calls = list(world.calls)
    runs = 0
    for number, verb in enumerate(calls, start=1):
        if number % every:
            continue
        for fault in ways(verb):
            broken(scenario, setting, make_store(), expected, FaultPlan({number: fault}))
            runs += 1
    return runs


def misfortune(seed: int) -> str:
    """One run of a scenario in a setting under faults all drawn by lot, in up to six lives. Returns its name."""
    chance = random.Random(seed)
    limits = chance.choice([ROOMY, TINY, *(replace(ROOMY, **{name: 1}) for name in ("episodes", "feeds"))])
    scenario = SCENARIOS[chance.choice(list(SCENARIOS))]
    setting = Setting(chance.choice(["yield", "await"]), limits, chance.random() < 0.5, chance.random() < 0.5)
    share = chance.choice([0.02, 0.05, 0.1, 0.2])
    kinds = list(Fault)
    plans = [
        FaultPlan({n: chance.choice(kinds) for n in range(1, 200) if chance.random() < share})
        for _ in range(6)
    ]
    seen = play(scenario, setting, in_memory(), *plans)[1]
    WORLDS.clear()
    assert seen == _undisturbed(scenario.name), f"{scenario.name}, {setting}, seed {seed}"
    return scenario.name


@cache
def _undisturbed(name: str) -> dict[str, Any]:
    return play(SCENARIOS[name], PLAIN, in_memory())[1]


def broken(
    scenario: Scenario, setting: Setting, store: Store, expected: dict[str, Any], *plans: FaultPlan
) -> World:
    """Play with these faults and compare."""
    told = ", then ".join(f"call {n} {fault}" for plan in plans for n, fault in plan.faults.items())
    try:
        world, seen = play(scenario, setting, store, *plans)
    except AssertionError as error:
        raise AssertionError(f"{scenario.name}, {told}: {error}") from error
    fired = [fault for life in world.lives for fault in life.fired]
    assert fired, f"{scenario.name}, {told}: nothing of this happened"
    for part, value in expected.items():
        assert seen[part] == value, f"{scenario.name}, {told}: {part} differ: {seen[part]} instead of {value}"
    return world
