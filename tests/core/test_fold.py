"""What history alone tells: status, what is open, what it waits for, and what no engine should have written."""

import pytest

from perdure.model import events as ev
from perdure.model.instances import RuntimeStatus
from perdure.replay.state import LEGAL, fold
from perdure.testing import HistoryBuilder


def started() -> HistoryBuilder:
    return HistoryBuilder("claims").started()


def sentence(history: HistoryBuilder, reason: str = "") -> str:
    return fold(history.episodes).waiting(reason).sentence()


def test_nothing_yet_is_pending():
    assert fold([]).status is RuntimeStatus.Pending


@pytest.mark.parametrize(
    ("history", "status"),
    [
        (started(), RuntimeStatus.Running),
        (started().suspended("lunch"), RuntimeStatus.Suspended),
        (started().suspended().resumed(), RuntimeStatus.Running),
        (started().parked("nondeterminism", "..."), RuntimeStatus.Suspended),
        (started().returned(1), RuntimeStatus.Completed),
        (started().raised_error(), RuntimeStatus.Failed),
        (started().terminated("enough"), RuntimeStatus.Terminated),
        (started().continued_as_new(), RuntimeStatus.ContinuedAsNew),
    ],
)
def test_the_status_follows_from_history(history, status):
    state = fold(history.episodes)

    assert state.status is status
    assert state.problems == []


def test_what_is_open_is_what_was_decided_and_not_answered():
    history = started().scheduled("a").timer(60).child("c", instance_id="kid").awaited("Go").completed(0)

    state = fold(history.episodes)

    assert (list(state.activities), list(state.timers), list(state.children), list(state.waits)) == (
        [],
        [1],
        [2],
        [3],
    )
    assert state.due_at() == history.episodes[0][0] + 60_000_000


def test_one_sentence_says_what_it_waits_for():
    assert sentence(started().scheduled("assess")) == "waiting for the activity 'assess'"
    assert sentence(started().timer(60)) == "waiting for the timer due at 2026-01-01 09:01:00 UTC"
    assert (
        sentence(started().awaited("Decision", timeout=259_200))
        == "waiting for the event 'Decision' since 2026-01-01 09:00:00 UTC, until 2026-01-04 09:00:00 UTC"
    )
    assert sentence(started().child("c", instance_id="kid")) == "waiting for the sub-orchestration 'c' (kid)"


def test_several_things_are_joined_and_many_of_a_kind_are_counted():
    history = started().awaited("Go").timer(60)
    crowd = started()
    for _ in range(5):
        crowd.scheduled("work")

    assert sentence(history) == (
        "waiting for the event 'Go' since 2026-01-01 09:00:00 UTC, "
        "and for the timer due at 2026-01-01 09:01:00 UTC"
    )
    assert sentence(crowd) == "waiting for 5 activities"


def test_a_failed_call_that_is_retried_appears_as_a_retry_and_not_as_a_timer():
    history = started().scheduled("pay").failed(0).timer(10, purpose="retry", of=0)

    assert sentence(history) == (
        "waiting for attempt 2 of 'pay' at 2026-01-01 09:00:10 UTC (it failed with ValueError)"
    )
    history.fired(1).scheduled("pay", call=0, attempt=2)
    assert sentence(history) == "waiting for the activity 'pay' (attempt 2)"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("operator: lunch", "suspended by an operator"),
        ("nondeterminism: ...", "does not match its history"),
        ("poison: ...", "failed again and again"),
        ("no_worker: ...", "a worker that has its orchestrator"),
    ],
)
def test_a_reason_to_stand_still_comes_before_everything_else(reason, words):
    assert words in sentence(started().timer(60), reason)


def test_the_finished_wait_for_nothing():
    assert sentence(started().scheduled("a").returned()) == ""


def test_an_event_is_taken_by_the_oldest_wait_or_kept():
    history = started().raised("Go", 1).raised("Go", 2).awaited("go")

    state = fold(history.episodes)

    assert [bytes(event.input) for _, event in state.buffered] == [b"2"]
    assert state.waits == {}


def test_a_rejected_event_opens_the_wait_again_for_the_next_one():
    history = started().awaited("Go").raised("Go", "bad").rejected(0, "Go")

    assert list(fold(history.episodes).waits) == [0]
    history.raised("Go", "good")
    assert fold(history.episodes).waits == {}


def test_an_event_that_was_taken_unseen_goes_back_to_the_queue():
    history = started().awaited("Go").raised("Go", 1).raised("Go", 2).wait_cancelled(0)

    assert [bytes(event.input) for _, event in fold(history.episodes).buffered] == [b"1", b"2"]


@pytest.mark.parametrize(
    ("history", "invariant"),
    [
        (started().returned().completed(0), "I4"),
        (HistoryBuilder().completed(0), "I3"),
        (started().started(), "I3"),
        (started().completed(5), "I6"),
        (started().fired(5), "I6"),
        (started().scheduled("a").completed(0).completed(0), "I6"),
        (started().rejected(3, "Go"), "I6"),
    ],
)
def test_what_no_engine_writes_is_named_with_its_invariant(history, invariant):
    assert any(invariant in problem for problem in fold(history.episodes).problems)


def test_a_gap_in_the_event_ids_is_named():
    state = fold([(0, [ev.ExecutionStarted(name="c"), ev.TaskScheduled(id=1, name="a")])])

    assert state.problems == ["event id 1 where 0 was due (I1)"]


def test_each_verb_is_legal_in_the_statuses_of_one_table():
    finished = {s for s in RuntimeStatus if s.is_finished}

    assert {verb for verb, where in LEGAL.items() if where == finished} == {"restart", "purge"}
    assert LEGAL["rewind"] == {RuntimeStatus.Failed}
    ended = ("restart", "purge", "rewind")
    assert all(not (where & finished) for verb, where in LEGAL.items() if verb not in ended)


def test_calls_of_entities_are_open_until_answered():
    history = started().entity_called("@account@a", "get").entity_called("@account@b", "get")

    assert fold(history.entity_answered(0, 5).episodes).problems == []
    assert sentence(history) == "waiting for the entity @account@b to do 'get'"
    assert fold(history.entity_failed(0).episodes).problems == [
        "EntityOperationFailed of 0, which is not open (I6)"
    ]


def test_a_critical_section_waits_for_one_lock_after_the_other():
    history = started().lock_requested("@account@b", "@account@a")

    assert sentence(history) == "waiting for the lock of the entity @account@a"
    assert fold(history.episodes).asked_locks() == {0: ("@account@a",)}
    history.lock_granted(0, "@account@a")
    assert sentence(history) == "waiting for the lock of the entity @account@b"
    assert fold(history.episodes).asked_locks() == {0: ("@account@a", "@account@b")}
    history.lock_granted(0, "@account@b")
    assert sentence(history) == ""
    assert fold(history.episodes).asked_locks() == {0: ("@account@a", "@account@b")}
    state = fold(history.lock_released(0).episodes)
    assert (state.asked_locks(), state.problems) == ({}, [])


def test_a_lock_that_nobody_waits_for_is_not_granted():
    history = started().lock_requested("@account@a").lock_granted(0, "@account@b")

    assert fold(history.episodes).problems == ["LockGranted of @account@b, which lock 0 did not await (I6)"]
