"""Retry policies, and the one function that applies them. Pure: time and randomness are arguments."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import timedelta
from typing import overload

from perdure.errors import PayloadError
from perdure.failure import Failure, Kind
from perdure.model.durations import LATEST, Seconds, micros


@dataclass(frozen=True)
class RetryPolicy:
    """How often, and after which pauses, a failed activity or sub-orchestration is retried.

    The pause before attempt n+1 is `first_interval * backoff ** (n - 1)`, at most `max_interval`, lengthened
    or shortened at random by up to `jitter` of itself. Intervals are seconds or timedeltas.

    Parameters:
        first_interval: the pause after the first failure.
        max_attempts: attempts in all, the first included; 0 means no limit.
        backoff: factor from one pause to the next; 1.0 keeps them equal.
        max_interval: no pause is longer than this.
        max_elapsed: no attempt starts later than this after the first was scheduled.
        jitter: 0.0 to 1.0; history records the chosen pause as the timer's due time.
        non_retryable: exception classes, or their names, that are not retried, subclasses included.
            `Failure.is_a` defines how names match. Explicit causes (`raise ... from ...`) and the members of
            exception groups count too; an exception that was only being handled does not. An input that does
            not fit and a result that cannot be recorded are never retried.
    """

    first_interval: Seconds = 1.0
    max_attempts: int = 3
    backoff: float = 1.0
    max_interval: Seconds | None = None
    max_elapsed: Seconds | None = None
    jitter: float = 0.0
    non_retryable: tuple[Kind, ...] = ()

    def __post_init__(self) -> None:
        if micros(self.first_interval) <= 0:
            raise ValueError("RetryPolicy.first_interval must be more than 0 seconds")
        for name in ("max_interval", "max_elapsed"):
            given = getattr(self, name)
            if given is not None and micros(given) < 0:
                raise ValueError(f"RetryPolicy.{name} must not be negative, not {given!r}")
        if self.max_attempts < 0:
            raise ValueError("RetryPolicy.max_attempts counts all attempts: 1 or more, or 0 for no limit")
        if not self.backoff >= 1.0:
            raise ValueError("RetryPolicy.backoff must be at least 1.0")
        if not 0.0 <= self.jitter <= 1.0:
            raise ValueError("RetryPolicy.jitter must be 0.0 to 1.0, a fraction of the pause")
        object.__setattr__(self, "non_retryable", tuple(self.non_retryable))

    def also_final(self, *kinds: Kind) -> RetryPolicy:
        """The same policy, which also does not retry these failures."""
        same = {one.name: getattr(self, one.name) for one in fields(RetryPolicy)}
        return RetryPolicy(**{**same, "non_retryable": (*self.non_retryable, *kinds)})

    def allows(self, failure: Failure) -> bool:
        """Whether this failure may be retried at all.

        A payload that cannot be encoded or does not fit would fail in every attempt, and a result that cannot
        be recorded comes after the activity's effects.
        """
        return not failure.is_a(PayloadError) and not any(failure.is_a(kind) for kind in self.non_retryable)


class RetryOptions(RetryPolicy):
    """A `RetryPolicy` in the terms of azure-functions-durable, in milliseconds. It is accepted wherever a
    policy is.

    Parameters:
        first_retry_interval_in_milliseconds: the pause after the first failure; more than 0.
        max_number_of_attempts: attempts in all, the first included; 1 or more.
        backoff_coefficient: factor from one pause to the next. This and the following are members of Azure's
            retry options that its Python package never offered.
        max_retry_interval_in_milliseconds: no pause is longer than this.
        retry_timeout_in_milliseconds: no attempt starts later than this after the first was scheduled.
    """

    def __init__(
        self,
        first_retry_interval_in_milliseconds: int,
        max_number_of_attempts: int,
        *,
        backoff_coefficient: float = 1.0,
        max_retry_interval_in_milliseconds: int | None = None,
        retry_timeout_in_milliseconds: int | None = None,
    ) -> None:
        if max_number_of_attempts < 1:
            raise ValueError("max_number_of_attempts counts all attempts: 1 or more")
        if first_retry_interval_in_milliseconds <= 0:
            raise ValueError("first_retry_interval_in_milliseconds must be more than 0")
        super().__init__(
            first_interval=_of_milliseconds(first_retry_interval_in_milliseconds),
            max_attempts=max_number_of_attempts,
            backoff=backoff_coefficient,
            max_interval=_of_milliseconds(max_retry_interval_in_milliseconds),
            max_elapsed=_of_milliseconds(retry_timeout_in_milliseconds),
        )

    @property
    def first_retry_interval_in_milliseconds(self) -> int:
        """The pause after the first failure."""
        return micros(self.first_interval) // 1_000

    @property
    def max_number_of_attempts(self) -> int:
        """Attempts in all, the first included."""
        return self.max_attempts

    def to_json(self) -> dict[str, int | float]:
        """The options as Azure writes them, without those at their defaults."""
        optional = {
            "backoffCoefficient": self.backoff if self.backoff != 1.0 else None,
            "maxRetryIntervalInMilliseconds": _in_milliseconds(self.max_interval),
            "retryTimeoutInMilliseconds": _in_milliseconds(self.max_elapsed),
        }
        return {
            "firstRetryIntervalInMilliseconds": self.first_retry_interval_in_milliseconds,
            "maxNumberOfAttempts": self.max_attempts,
            **{name: value for name, value in optional.items() if value is not None},
        }


@overload
def _of_milliseconds(value: int) -> timedelta: ...
@overload
def _of_milliseconds(value: int | None) -> timedelta | None: ...
def _of_milliseconds(value: int | None) -> timedelta | None:
    return None if value is None else timedelta(milliseconds=value)


def _in_milliseconds(duration: Seconds | None) -> int | None:
    return None if duration is None else micros(duration) // 1_000


def next_attempt_at(
    policy: RetryPolicy, failure: Failure, *, attempt: int, first_at: int, now: int, randomness: float
) -> int | None:
    """The start of the attempt after `attempt`, in microseconds, or None if the failure is final.

    `first_at` is when the first attempt was scheduled; `randomness`, 0.0 to 1.0, sets the jitter.
    """
    if (policy.max_attempts and attempt >= policy.max_attempts) or not policy.allows(failure):
        return None
    at = min(now + _pause(policy, attempt, randomness), LATEST)
    if policy.max_elapsed is not None and at - first_at > micros(policy.max_elapsed):
        return None
    return at


def _pause(policy: RetryPolicy, attempt: int, randomness: float) -> int:
    longest = micros(policy.max_interval) if policy.max_interval is not None else micros(timedelta(days=3650))
    try:
        factor = policy.backoff ** (attempt - 1)
    except OverflowError:
        factor = 1e12
    pause = min(micros(policy.first_interval) * min(factor, 1e12), longest)
    return int(min(pause * (1.0 + policy.jitter * (2.0 * randomness - 1.0)), longest))
