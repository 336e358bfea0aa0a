"""Crash after every step: each call of the store is broken in each way, and nobody can tell from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.testing.faults import Fault, Plan
from tests.crash.scenarios import SCENARIOS
from tests.crash.sweep import CRAMPED, PLAIN, Setting, broken, in_memory, on_files, play, sweep
from tests.crash.world import TINY

ALL = list(SCENARIOS)
THOROUGH = ["activities_in_sequence", "continue_as_new_with_events", "retries_on_timers", "terminate_recursively"]
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
def test_any_call_may_fail_in_memory(name: str) -> None:
    assert sweep(name, PLAIN, in_memory) > 10


@pytest.mark.parametrize("name", ALL)
def test_any_call_may_fail_with_small_batches_and_cold_executions(name: str) -> None:
    assert sweep(name, CRAMPED, in_memory) > 10


@pytest.mark.parametrize("name", ALL)
def test_any_call_may_fail_on_sqlite(name: str, tmp_path: Path) -> None:
    assert sweep(name, PLAIN, on_files(tmp_path), every=1 if name in THOROUGH else 3) > 3
