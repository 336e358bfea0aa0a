"""`@app.retry`, and the member `retry` of a function.json, as a policy."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from perdure.model.retry import RetryPolicy


def policy_of(retry: Mapping[str, Any] | None) -> RetryPolicy | None:
    """The policy that a function asks for, None for none. Raises ValueError for one that cannot be read."""
    if not retry:
        return None
    told = {key.replace("_", "").casefold(): value for key, value in retry.items() if value is not None}
    most = int(told.get("maxretrycount", 0))
    attempts = 0 if most < 0 else most + 1
    if str(told.get("strategy", "")).replace("_", "").casefold() == "exponentialbackoff":
        return RetryPolicy(
            first_interval=time_span(told.get("minimuminterval", "00:00:01")),
            max_interval=time_span(told.get("maximuminterval", "00:00:30")),
            backoff=2.0,
            max_attempts=attempts,
        )
    return RetryPolicy(first_interval=time_span(told.get("delayinterval", "00:00:01")), max_attempts=attempts)


def time_span(text: Any) -> timedelta:
    """A duration as Azure writes it: `[d.]hh:mm:ss[.fff]`, or seconds as a number. Raises ValueError."""
    if isinstance(text, int | float):
        return timedelta(seconds=text)
    days, dot, rest = str(text).partition(".")
    if not dot or ":" in days:
        days, rest = "0", str(text)
    parts = rest.split(":")
    if len(parts) != 3:
        raise ValueError(f"{text!r} is no duration: write hh:mm:ss")
    hours, minutes, seconds = parts
    return timedelta(days=int(days), hours=int(hours), minutes=int(minutes), seconds=float(seconds))


__all__ = ["policy_of", "time_span"]
