"""The built-in orchestrator behind `call_http`: it polls for the outcome of a request with the response 202.

It waits on durable timers and continues as new after every hundred polls, so that it can poll for weeks.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import msgspec

from perdure.model.durations import instant, moment
from perdure.model.http_calls import (
    ACCEPTED,
    HTTP_ACTIVITY,
    TOO_MANY,
    UNAVAILABLE,
    HttpResponse,
    Polling,
    onward,
    poll_address,
    retry_after,
)
from perdure.model.retry import RetryPolicy
from perdure.replay.context import OrchestrationContext
from perdure.replay.http_calls import NEVER_AGAIN, pause
from perdure.replay.task import Task

POLLS_PER_EXECUTION = 100
POLL_RETRY = RetryPolicy(5, max_attempts=6, backoff=2.0, max_interval=120, non_retryable=NEVER_AGAIN)
"""A poll changes nothing, so a failed poll is retried."""


def polling(context: OrchestrationContext) -> Generator[Task[Any], Any, HttpResponse | None]:
    """The built-in orchestrator: poll until there is an outcome."""
    told = context.get_input(Polling)
    request, wait = told.request, told.wait
    for poll in range(told.polls, told.polls + POLLS_PER_EXECUTION):
        at = instant(context.current_utc_datetime) + wait
        context.set_custom_status({"polling": request.uri, "polls": poll})
        yield context.create_timer(moment(min(at, told.deadline) if told.deadline else at))
        if told.deadline and at > told.deadline:
            raise TimeoutError(f"{request.uri} had no outcome within poll_timeout, after {poll} polls")
        response: HttpResponse = yield context.call_activity(
            HTTP_ACTIVITY, request, HttpResponse, retry=POLL_RETRY
        )
        asked = retry_after(response, context.current_utc_datetime)
        address = poll_address(response, request.uri)
        if address is None and not _busy(response, asked):
            return response
        if address is not None:
            request = onward(request, address, method="GET")
        wait = pause(asked, told.interval)
    context.continue_as_new(
        msgspec.structs.replace(told, request=request, wait=wait, polls=told.polls + POLLS_PER_EXECUTION)
    )
    return None


def _busy(response: HttpResponse, asked: int | None) -> bool:
    """Whether the response asks for another poll of the same address."""
    if asked is None:
        return response.status_code == ACCEPTED  # without a new address, the old one is polled again
    return response.status_code in (ACCEPTED, TOO_MANY, UNAVAILABLE)
