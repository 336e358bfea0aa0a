"""When to try again: arithmetic, without an orchestrator."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import PayloadError
from perdure.failure import Failure
from perdure.model.failures import failure_of
from perdure.model.retry import RetryPolicy, next_attempt_at

SECOND = 1_000_000
BROKEN = Failure("ValueError", "no")


def pauses(policy: RetryPolicy, attempts: int, *, randomness: float = 0.5) -> list[float | None]:
    """The pause after each failed attempt in seconds, were every attempt to fail at once."""
    found: list[float | None] = []
    now = 0
    for attempt in range(1, attempts + 1):
        at = next_attempt_at(policy, BROKEN, attempt=attempt, first_at=0, now=now, randomness=randomness)
        found.append(None if at is None else (at - now) / SECOND)
        now = at if at is not None else now
    return found


def test_pauses_grow_by_the_backoff_up_to_the_longest():
    policy = RetryPolicy(first_interval=1, backoff=2, max_interval=5, max_attempts=6)

    assert pauses(policy, 6) == [1, 2, 4, 5, 5, None]


def test_without_a_backoff_they_stay_equal():
    assert pauses(RetryPolicy(first_interval=3, max_attempts=3), 3) == [3, 3, None]


def test_one_attempt_means_no_retry():
    assert pauses(RetryPolicy(max_attempts=1), 1) == [None]


def test_zero_attempts_mean_no_limit():
    assert None not in pauses(RetryPolicy(max_attempts=0), 500)


def test_no_attempt_begins_after_the_total_time():
    assert pauses(RetryPolicy(first_interval=10, max_attempts=0, max_elapsed=25), 3) == [10, 10, None]


def test_intervals_may_be_timedeltas():
    assert pauses(RetryPolicy(first_interval=timedelta(minutes=2)), 1) == [120]


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 5))
def test_jitter_stays_within_its_share_of_the_pause(jitter, randomness, attempt):
    policy = RetryPolicy(first_interval=8, jitter=jitter, max_attempts=0)

    at = next_attempt_at(policy, BROKEN, attempt=attempt, first_at=0, now=0, randomness=randomness)

    assert 8 * (1 - jitter) * SECOND - 1 <= at <= 8 * (1 + jitter) * SECOND + 1


def test_jitter_never_exceeds_the_longest_pause():
    policy = RetryPolicy(first_interval=8, max_interval=8, jitter=1.0)

    assert pauses(policy, 1, randomness=1.0) == [8]


def test_a_huge_backoff_does_not_overflow():
    policy = RetryPolicy(first_interval=1, backoff=1e6, max_attempts=0, max_interval=3600)

    assert next_attempt_at(policy, BROKEN, attempt=10_000, first_at=0, now=0, randomness=0.5) == 3600 * SECOND


@pytest.mark.parametrize("kind", [ValueError, "ValueError", "builtins.ValueError"])
def test_an_error_not_to_retry_ends_it_at_once(kind):
    policy = RetryPolicy(non_retryable=(kind,))

    assert next_attempt_at(policy, BROKEN, attempt=1, first_at=0, now=0, randomness=0) is None


def test_a_cause_counts_as_well():
    policy = RetryPolicy(non_retryable=("CardDeclined",))
    wrapped = Failure("RuntimeError", "payment", cause=Failure("shop.errors.CardDeclined", "4"))

    assert not policy.allows(wrapped)
    assert policy.allows(BROKEN)


def test_a_payload_that_cannot_be_carried_is_final_whatever_the_policy_names():
    refused = failure_of(PayloadError("a value of type Receipt has no JSON form"))
    child = Failure("perdure.errors.TaskFailedError", "charge failed", cause=refused)

    assert not RetryPolicy(max_attempts=0).allows(refused)
    assert not RetryPolicy(max_attempts=0).allows(child)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"first_interval": 0}, "more than 0 seconds"),
        ({"max_attempts": -1}, "1 or more"),
        ({"backoff": 0.5}, "at least 1.0"),
        ({"jitter": 1.5}, "0.0 to 1.0"),
        ({"first_interval": float("nan")}, "finite"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_when_it_is_written(wrong, message):
    with pytest.raises(ValueError, match=message):
        RetryPolicy(**wrong)
