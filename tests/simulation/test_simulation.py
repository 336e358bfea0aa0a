"""The simulator runs, is deterministic, sees the cases that matter, and notices what is broken."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perdure.engine.core import lifecycle
from perdure.engine.loop import loop
from perdure.engine.loop.timers import Wakeups
from perdure.model.retry import RetryPolicy
from perdure.replay.context import OrchestrationContext
from perdure.store.memory import MemoryStore
from simulation import campaign
from simulation.entity_checks import sent_by
from simulation.plan import Fault, Plan
from simulation.plan_generator import plan_of
from simulation.program import Program, Sub, steps_of
from simulation.runner import run_plan, run_seed
from simulation.shrink import Shrinker, tell
from simulation.sometimes import LOG_CASES
from simulation.world import World

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[2]
QUICK, LONG = 120, 1_000  # seeds, the second with `--long`
RARE = 4  # cases that a quick run may miss


@pytest.fixture(scope="module")
def alone(is_long_run: bool) -> campaign.Summary:
    return campaign.run(range(LONG if is_long_run else QUICK), jobs=2)


@pytest.mark.xdist_group("simulation-alone")
def test_nothing_is_violated(alone: campaign.Summary) -> None:
    told = [f"seed {r.seed} [{r.problems[0][0]}] {r.problems[0][1][:300]}" for r in alone.failures]
    assert not told, "\n".join([*told, "again: python -m simulation --seed N"])


@pytest.mark.xdist_group("simulation-alone")
def test_every_case_came_up(alone: campaign.Summary, is_long_run: bool) -> None:
    assert len(alone.missed()) <= (0 if is_long_run else RARE), alone.missed()


@pytest.fixture(scope="module")
def shared(is_long_run: bool) -> campaign.Summary:
    return campaign.run(range(LONG if is_long_run else QUICK), jobs=2, shared=True)


@pytest.mark.xdist_group("simulation-shared")
def test_nothing_is_violated_among_several_workers(shared: campaign.Summary) -> None:
    told = [f"seed {r.seed} [{r.problems[0][0]}] {r.problems[0][1][:300]}" for r in shared.failures]
    assert not told, "\n".join([*told, "again: python -m simulation --shared --seed N"])


@pytest.mark.xdist_group("simulation-shared")
def test_every_case_came_up_among_several_workers(shared: campaign.Summary, is_long_run: bool) -> None:
    assert len(shared.missed()) <= (0 if is_long_run else RARE), shared.missed()


@pytest.fixture(scope="module")
def logged(is_long_run: bool) -> campaign.Summary:
    return campaign.run(range(LONG if is_long_run else QUICK), jobs=2, log=True)


@pytest.mark.xdist_group("simulation-log")
def test_nothing_is_violated_with_the_hub_in_a_log(logged: campaign.Summary) -> None:
    told = [f"seed {r.seed} [{r.problems[0][0]}] {r.problems[0][1][:300]}" for r in logged.failures]
    assert not told, "\n".join([*told, "again: python -m simulation --log --seed N"])


@pytest.mark.xdist_group("simulation-log")
def test_every_case_of_a_log_came_up(logged: campaign.Summary) -> None:
    assert [case for case in LOG_CASES if not logged.met[case]] == []


def test_the_same_seed_is_the_same_run_with_the_hub_in_a_log() -> None:
    for seed in range(0, 40, 5):
        assert run_seed(seed, log=True).trace == run_seed(seed, log=True).trace, seed


def test_the_same_seed_is_the_same_run_among_several_workers() -> None:
    for seed in range(0, 20, 3):
        assert run_seed(seed, shared=True).trace == run_seed(seed, shared=True).trace, seed


def test_rows_of_a_stale_worker_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit without its fence lets in what a worker wrote that had been taken for dead."""
    monkeypatch.setattr(MemoryStore, "_check_fence", lambda self: None)
    assert any("I27" in [code for code, _ in run_seed(seed, shared=True).problems] for seed in range(60))


def test_the_same_seed_is_the_same_run() -> None:
    for seed in range(0, 40, 3):
        assert run_seed(seed).trace == run_seed(seed).trace, seed


def test_the_same_run_under_another_hash_seed() -> None:
    program = (
        "from simulation.runner import run_seed\n"
        "print([run_seed(s, shared=shared).trace for s in range(6) for shared in (False, True)])"
    )
    traces = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "4711")
    }
    assert len(traces) == 1


def _histories(plan: Plan) -> list[Any]:
    world = World(plan)
    try:
        world.run()
        return [
            (number, run.row, [past.rows for past in run.executions.values()])
            for number, run in sorted(world.ledger.runs.items())
        ]
    finally:
        world.dispose()


def test_both_stores_end_with_the_same_rows(is_long_run: bool) -> None:
    """With the same faults in the same places, times and hashes included."""
    for seed in range(150 if is_long_run else 40):
        plan = plan_of(seed)
        memory, sqlite = (replace(plan, knobs=replace(plan.knobs, store=s)) for s in ("memory", "sqlite"))
        assert _histories(memory) == _histories(sqlite), seed


def test_an_eviction_after_every_step_changes_nothing() -> None:
    """For one instance by itself: among several, those at hand come before those that must be loaded."""
    compared = 0
    for seed in range(150):
        plan = _alone(plan_of(seed))
        if plan is not None:
            compared += 1
            evicting = replace(plan, knobs=replace(plan.knobs, evicts_always=True))
            assert _without_replays(_histories(plan)) == _without_replays(_histories(evicting)), seed
    assert compared > 30


def _without_replays(histories: list[Any]) -> list[object]:
    """Without the counts of replays, which differ as they should."""
    return [(number, row._replace(replays=0, replay_reason=""), rows) for number, row, rows in histories]


def _alone(plan: Plan) -> Plan | None:
    """The plan with its first instance only, if that one has no children and uses no entities.

    Without messages about tasks: an instance that is in memory reads the rows of its tasks before the next batch, one
    that must be loaded reads them at once.
    """
    clients = tuple(c for c in plan.clients if {o.target for o in c.orders} == {"i0"})
    clients = tuple(c for c in clients if not {o.verb for o in c.orders} & {"claim", "release", "complete"})
    steps = steps_of(plan.program.bodies[0])
    parts = [part for step in steps for part in getattr(step, "parts", ())]
    if any(isinstance(step, Sub) for step in [*steps, *parts]) or any(sent_by(plan.program.bodies[0])):
        return None
    if any(order.body or order.new_id for client in clients for order in client.orders):
        return None
    faults = tuple(f for f in plan.faults if f.kind in ("commit", "release", "step") and f.effect != "evict")
    knobs = replace(plan.knobs, episodes=1_000, feeds=100, row_bytes=2**22, creeping=0.0, evicts_always=False)
    return replace(plan, clients=clients, faults=faults, knobs=knobs)


def _first_failure(seeds: range = range(QUICK)) -> str:
    for seed in seeds:
        code = run_seed(seed).code
        if code:
            return code
    return ""


def test_a_broken_engine_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Continue-as-new that forgets its events: the bug that this model of programming is known for."""
    monkeypatch.setattr(OrchestrationContext, "_unconsumed", lambda self: ())
    assert _first_failure() in ("I13", "outcome")


def test_lost_timers_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    pop_due = Wakeups.pop_due
    monkeypatch.setattr(Wakeups, "pop_due", lambda self, now, most: pop_due(self, now, most) and [])
    assert _first_failure() in ("I31", "I24")


def test_a_broken_release_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that leave before the commit: the first rule of the design."""
    seal = loop.Loop._seal

    def early(self: loop.Loop) -> object:
        batch = seal(self)
        answers, self.dispatcher.released.answers = self.dispatcher.released.answers, []
        loop.tell(answers)
        return batch

    monkeypatch.setattr(loop.Loop, "_seal", early)
    assert _first_failure() == "I16"


def test_a_broken_reference_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Policies that retry once too often: the reference counts for itself."""
    monkeypatch.setattr(RetryPolicy, "allows", lambda self, failure: True)
    assert _first_failure() in ("I21", "outcome")


def test_an_error_of_the_engines_own_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "drop_held", None)
    assert _first_failure() == "engine-error"


def test_a_failure_is_shrunk_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OrchestrationContext, "_unconsumed", lambda self: ())
    seed = next(seed for seed in range(QUICK) if run_seed(seed).code)
    plan = plan_of(seed)
    shrinker = Shrinker(plan, run_seed(seed).code, most_runs=150)
    small = shrinker.shrink()
    assert run_plan(small).code == run_seed(seed).code
    assert len(small.faults) <= len(plan.faults)
    assert f"seed {seed}" in tell(small)


def test_a_run_that_missed_a_case_is_not_good() -> None:
    summary = campaign.Summary()
    summary.add(run_plan(Plan(0, plan_of(0).knobs, Program(()), (), (Fault("commit", 0, "full"),))))
    assert summary.missed()
    assert not summary.is_good(strict=True)


def test_a_claim_reaches_an_instance_that_is_evicted_after_each_batch() -> None:
    """Its rows were read before a batch in which it was no longer in memory, again and again."""
    claimed = 0
    for seed in range(60):
        plan = plan_of(seed)
        if any(order.verb == "claim" for client in plan.clients for order in client.orders):
            result = run_plan(replace(plan, knobs=replace(plan.knobs, evicts_always=True)))
            assert result.problems == [], seed
            claimed += result.met["a task claimed"]
    assert claimed
