"""Crash after every step: each call of the store is broken in each way, and nobody can tell from outside."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perdure.testing.faults import Fault, FaultPlan
from tests.crash.scenarios import SCENARIOS
from tests.crash.sweep import CRAMPED, PLAIN, Setting, broken, in_memory, misfortune, on_files, play, sweep
from tests.crash.world import TINY

ALL = list(SCENARIOS)
THOROUGH = [
    "activities_in_sequence",
    "continue_as_new_with_events",
    "retries_on_timers",
    "terminate_recursively",
]
FORGETFUL = Setting("await", replace(TINY, keep_executions=1), evict=True)
SETTINGS = {
    "plain": PLAIN,
    "await": Setting("await"),
    "small batches": Setting(limits=TINY),
    "evicted after every turn": Setting("await", evict=True),
    "all of it, and results in reverse": CRAMPED,
}


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name", ALL)
def test_without_faults_every_setting_comes_to_the_same(name: str, setting: Setting) -> None:
    """Batch limits, eviction, style and the order of results change nothing that the outside sees."""
    world, seen = play(SCENARIOS[name], setting, in_memory())
    world.inner.open()
    for instance_id, output in SCENARIOS[name].outputs.items():
        status = world.status(instance_id)
        assert status is not None and status.output == output, status
    assert seen == play(SCENARIOS[name], PLAIN, in_memory())[1]
    assert world.unknown == 0


@pytest.mark.parametrize("name", ALL)
def test_any_call_may_fail_in_memory(name: str, is_long_run: bool) -> None:
    """Every second call, with `--long` every call; so do the next two."""
    assert sweep(name, PLAIN, in_memory, every=1 if is_long_run else 2) > 10


@pytest.mark.parametrize("name", ALL)
def test_any_call_may_fail_with_small_batches_and_cold_executions(name: str, is_long_run: bool) -> None:
    assert sweep(name, CRAMPED, in_memory, every=1 if is_long_run else 3) > 10


@pytest.mark.parametrize("name", ALL)
def test_any_call_may_fail_on_sqlite(name: str, is_long_run: bool) -> None:
    often = is_long_run or name in THOROUGH
    with on_files() as make_store:
        assert sweep(name, PLAIN, make_store, every=1 if often else 4) > 3


def test_any_call_may_fail_while_old_executions_are_deleted() -> None:
    assert sweep("continue_as_new_with_events", FORGETFUL, in_memory) > 10


@pytest.mark.parametrize("name", ["suspend_and_resume", "sub_orchestrations", "continue_as_new_with_events"])
def test_the_recovery_may_fail_too(name: str, is_long_run: bool) -> None:
    """The process dies at every 15th call (`--long`: 5th), and its successor's first calls fail in turn (B6)."""
    scenario = SCENARIOS[name]
    world, expected = play(scenario, CRAMPED, in_memory())
    for number in range(2, len(world.calls) + 1, 5 if is_long_run else 15):
        for second in range(1, 8):
            for fault in (Fault.FAIL, Fault.CRASH_BEFORE, Fault.LOSE_ANSWER, Fault.CRASH_AFTER):
                plans = FaultPlan({number: Fault.CRASH_AFTER}), FaultPlan({second: fault})
                broken(scenario, CRAMPED, in_memory(), expected, *plans)


def test_any_misfortune_ends_well(is_long_run: bool) -> None:
    """Faults of all kinds drawn by lot, one after the other; `tests.crash.long --misfortunes` has more."""
    assert {misfortune(seed) for seed in range(300 if is_long_run else 150)} == set(ALL)


def test_a_client_without_an_id_learns_that_nobody_knows() -> None:
    """And may ask again by instance id, without starting anything twice."""
    name = "clients_without_operation_ids"
    world, expected = play(SCENARIOS[name], PLAIN, in_memory())
    commit = world.calls.index("commit") + 1
    for fault in (Fault.FAIL, Fault.LOSE_ANSWER, Fault.FULL):
        assert broken(SCENARIOS[name], PLAIN, in_memory(), expected, FaultPlan({commit: fault})).unknown == 2


@pytest.mark.parametrize("name", ALL)
def test_an_unlucky_store_that_fails_again_and_again_changes_nothing(name: str) -> None:
    """Every fifth call fails, now so, now so, as long as the process lives; a tenth kills it."""
    scenario = SCENARIOS[name]
    world, expected = play(scenario, CRAMPED, in_memory())
    kinds = [Fault.LOSE_ANSWER, Fault.FAIL, Fault.FULL]
    for offset in range(2, 7):
        faults = {n: kinds[n % 3] for n in range(offset, 3 * len(world.calls), 5)}
        faults[offset + len(world.calls)] = Fault.CRASH_AFTER
        told = f"every fifth call from {offset}"
        seen = play(scenario, CRAMPED, in_memory(), FaultPlan(faults))[1]
        assert seen == expected, told
