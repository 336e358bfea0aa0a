"""The history builder and the replayer, as users have them."""

import json

import pytest

from perdure import App, FunctionNotFound, NonDeterminismError, RetryPolicy
from perdure.model import events as ev
from perdure.replay.context import OrchestrationContext
from perdure.testing import HistoryBuilder, check_history, load_history, replay

app = App("claims")


@app.activity(retry=RetryPolicy(first_interval=5))
def assess(claim: dict) -> float: ...


@app.orchestrator
async def claims(context: OrchestrationContext, claim: dict):
    risk = await context.call_activity("assess", claim)
    return {"risk": risk}


def test_the_builder_numbers_decisions_and_keeps_the_time():
    builder = HistoryBuilder("c").started().scheduled("a").later(90).completed(0, 1).timer(5).fired(1)

    (start, _), (later, completed), (due, _) = builder.episodes

    assert later - start == 90_000_000
    assert due - later == 5_000_000
    assert completed[1] == ev.TimerCreated(id=1, fire_at=due)


def test_a_decision_before_any_arrival_makes_no_sense():
    with pytest.raises(ValueError, match="begins with started"):
        HistoryBuilder().scheduled("a")


def test_with_the_application_a_name_has_its_retry_policy():
    history = HistoryBuilder("claims").started({}).scheduled("assess", {}).failed(0)

    assert isinstance(replay("claims", history, app=app).decisions[0], ev.TimerCreated)
    assert isinstance(replay(claims, history).ending, ev.ExecutionFailed)


def test_a_name_without_an_application_is_refused():
    with pytest.raises(FunctionNotFound, match="pass app="):
        replay("claims", HistoryBuilder().started())


def test_what_is_recorded_behind_the_last_arrival_has_to_agree():
    history = HistoryBuilder("claims").started({}).timer(5)

    with pytest.raises(NonDeterminismError, match="create a timer"):
        replay(claims, history)


def test_a_saved_history_is_checked_in_every_form():
    builder = HistoryBuilder("claims").started({}).scheduled("assess", {}).later(1).completed(0, 0.5)
    rows = [
        {"timestamp": f"2026-01-01T09:00:0{second}+00:00", **json.loads(json.dumps(event))}
        for second, event in [
            (0, {"type": "ExecutionStarted", "name": "claims", "input": {}}),
            (0, {"type": "TaskScheduled", "id": 0, "name": "assess", "input": {}}),
            (1, {"type": "TaskCompleted", "task_id": 0, "result": 0.5}),
        ]
    ]

    assert load_history(rows) == load_history(json.dumps({"history": rows})) == builder.episodes
    for saved in (builder, builder.episodes, rows, json.dumps(rows), json.dumps(rows).encode()):
        assert check_history(claims, saved, app=app) is not None  # it completes, and history does not say so
    rows.append({"timestamp": rows[-1]["timestamp"], "type": "ExecutionCompleted", "output": {"risk": 0.5}})
    assert check_history(claims, rows, app=app) is None


def test_a_history_without_an_arrival_is_refused():
    with pytest.raises(ValueError, match="no arrival"):
        replay(claims, [])
