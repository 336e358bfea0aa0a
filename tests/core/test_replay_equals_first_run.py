"""Replay is living it again: for any orchestrator, any arrivals, any prefix, in both styles, in any process."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.model import events as ev
from tests.core.programs import (
    arrive,
    exchanges,
    execution_of,
    fingerprint,
    live,
    random_program,
    run_async,
    run_yield,
)

ROOT = Path(__file__).parents[2]
many = settings(max_examples=150, deadline=None)


def a_life(chance: random.Random, run):
    program = random_program(chance)
    return program, *live(run, program, chance)


@many
@given(st.randoms(use_true_random=False), st.sampled_from([run_yield, run_async]))
def test_every_prefix_replays_and_goes_on_exactly_as_recorded(chance, run):
    program, episodes, _, execution = a_life(chance, run)
    execution.close()
    recorded = exchanges(episodes)

    for k in range(len(recorded) + 1):
        again = execution_of(run, program)
        again.replay([(at, [arrival, *decisions]) for at, arrival, decisions in recorded[:k]])
        lived = [arrive(again, at, arrival) for at, arrival, _ in recorded[k:]]
        again.close()
        assert lived == [decisions for _, _, decisions in recorded[k:]]


@many
@given(st.randoms(use_true_random=False))
def test_both_styles_make_the_same_history(chance):
    program, episodes, _, execution = a_life(chance, run_yield)
    execution.close()
    recorded = exchanges(episodes)

    other = execution_of(run_async, program)
    lived = [arrive(other, at, arrival) for at, arrival, _ in recorded]
    other.close()

    assert lived == [decisions for _, _, decisions in recorded]


@many
@given(st.randoms(use_true_random=False), st.sampled_from([run_yield, run_async]))
def test_history_alone_tells_what_is_open(chance, run):
    _, _, state, execution = a_life(chance, run)
    context = execution.context

    assert state.problems == []
    if state.ending is None:
        assert set(context._calls) == {*state.activities, *state.children}
        assert set(context._timers) == set(state.timers)
        assert context._earliest_timer() == state.due_at()
        assert set(context._waits) == set(state.waits)
        assert [event for _, event in context._buffered] == [event for _, event in state.buffered]
    execution.close()


@many
@given(st.randoms(use_true_random=False), st.sampled_from([run_yield, run_async]))
def test_every_event_is_taken_rejected_or_kept(chance, run):
    _, episodes, state, execution = a_life(chance, run)
    happened = [type(event) for _, events in episodes for event in events]
    kept = execution.context._unconsumed()

    assert happened.count(ev.EventRaised) == (
        happened.count(ev.EventRejected) + len(state.taken) + len(state.buffered)
    )
    assert len(state.buffered) <= len(kept) <= len(state.buffered) + len(state.taken)
    execution.close()


@pytest.mark.parametrize("seed", ["0", "12345"])
def test_another_process_with_another_hash_seed_makes_the_same_histories(seed):
    child = subprocess.run(
        [sys.executable, "-m", "tests.core.programs", "60"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )

    assert child.stdout == fingerprint(60)
