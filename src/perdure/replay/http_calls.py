"""`context.call_http`: an activity that sends the request, and a sub-orchestration that polls for the outcome.

A built-in activity sends the request; its result is the response, whatever its status. If the response is 202
with a location, a built-in sub-orchestration polls there, with durable timers in between, and its output is the
final response. So a call is two entries of this history however long it polls, and polling continues after a
restart. The next step follows from recorded responses alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from perdure.errors import ExtraMissing, HttpDenied, SecretNotFound, TaskCancelled
from perdure.model.durations import Seconds, in_range, micros
from perdure.model.http_calls import (
    ABOUT_CONTENT,
    HTTP_ACTIVITY,
    HTTP_POLLING,
    HttpRequest,
    HttpResponse,
    ManagedIdentityTokenSource,
    Polling,
    Secret,
    onward,
    poll_address,
    request_of,
    retry_after,
)
from perdure.model.retry import RetryPolicy
from perdure.replay.activity_calls import ActivityCalls
from perdure.replay.child_calls import ChildCalls
from perdure.replay.task import DONE, Task

POLL_INTERVAL = 30.0  # seconds, as in Azure
SHORTEST_PAUSE = 1_000_000  # microseconds
NEVER_AGAIN = (HttpDenied, SecretNotFound, ExtraMissing)
"""Failures that a retry would repeat."""


class HttpCalls(ActivityCalls, ChildCalls):
    """The part of an orchestration's context that calls other systems over HTTP."""

    __slots__ = ()

    def call_http(
        self,
        method: str,
        uri: str,
        content: Any = None,
        headers: Mapping[str, str | Secret] | None = None,
        token_source: ManagedIdentityTokenSource | None = None,
        is_raw_str: bool = False,
        *,
        poll: bool = True,
        poll_interval: Seconds = POLL_INTERVAL,
        poll_timeout: Seconds | None = None,
        timeout: Seconds | None = None,
        retry: RetryPolicy | None = None,
        retry_statuses: Collection[int] = (),
        idempotency_key: bool = True,
        asynchronous_pattern_enabled: bool | None = None,
    ) -> Task[HttpResponse]:
        """Send an HTTP request, durably; wait for the task to get the response, whatever its status.

        After a response 202 with a `Location`, the call polls that address until it gets another status, for
        days if necessary, at the intervals of `Retry-After`. `App(http=HttpPolicy(...))` sets the allowed
        hosts, the maximal size of bodies and the source of secrets; private addresses are rejected unless it
        allows them.

        Parameters:
            content: JSON (text too is sent as a JSON string), or bytes; dicts and lists may hold a `Secret`.
            headers: text, or a `Secret`, whose value never reaches history.
            token_source: adds a bearer token.
            is_raw_str: send text as it is.
            poll: poll after a 202; otherwise the 202 is the response. `asynchronous_pattern_enabled` is Azure's
                name.
            poll_interval: seconds between two polls without a `Retry-After`.
            poll_timeout: maximal seconds of polling; then TimeoutError.
            timeout: maximal seconds of one request; default is the policy's.
            retry: the retry policy for connection errors and timeouts; default is no retry.
            retry_statuses: statuses, such as 503, that count as failures while attempts are left.
            idempotency_key: send the name of this logical call as `Idempotency-Key`, the same in each attempt.

        Raises:
            ValueError, TypeError, PayloadError at once, for an invalid request; the task raises TaskFailedError
            when there is no response.
        """
        self._alive()
        request = msgspec.structs.replace(
            request_of(method, uri, content, headers, is_raw_str=is_raw_str),
            token_resource=token_source.resource if token_source is not None else "",
            idempotent=idempotency_key,
            retry_statuses=tuple(sorted(retry_statuses)),
            timeout=0.0 if timeout is None else _positive(timeout, "timeout") / 1e6,
            attempts=retry.max_attempts if retry is not None else 1,
        )
        policy = retry.also_final(*NEVER_AGAIN) if retry is not None else None
        sent = self.call_activity(HTTP_ACTIVITY, request, HttpResponse, retry=policy)
        if not (poll if asynchronous_pattern_enabled is None else asynchronous_pattern_enabled):
            return sent
        return HttpTask(
            self,
            sent,
            request,
            interval=_positive(poll_interval, "poll_interval"),
            deadline=0
            if poll_timeout is None
            else in_range(self._now + _positive(poll_timeout, "poll_timeout"), "poll_timeout"),
        )


class HttpTask(Task[HttpResponse]):
    """A call whose response may be 202; then a sub-orchestration polls for another status."""

    __slots__ = ("_deadline", "_interval", "_polling", "_request", "_sent")

    _context: HttpCalls

    def __init__(
        self,
        context: HttpCalls,
        sent: Task[HttpResponse],
        request: HttpRequest,
        *,
        interval: int,
        deadline: int,
    ) -> None:
        super().__init__(context, sent.id)
        self._request = request
        self._interval = interval
        self._deadline = deadline
        self._polling = False
        self._sent = sent
        sent._add_waiter(self)

    def on_done(self, task: Task[Any]) -> None:
        if task._state != DONE:
            self._fail(task._outcome)
            return
        response: HttpResponse = task._outcome
        try:
            address = None if self._polling else poll_address(response, self._request.uri)
        except ValueError as error:
            self._fail(
                ValueError(f"{self._describe()} returned 202, and polling it is not possible: {error}")
            )
            return
        if address is None:
            self._complete(response)
        else:
            self._follow_up(response, address)

    def _follow_up(self, response: HttpResponse, address: str) -> None:
        context = self._context
        asked = retry_after(response, context.current_utc_datetime)
        polling = Polling(
            request=_question(self._request, address, response.url),
            wait=pause(asked, self._interval),
            interval=self._interval,
            deadline=self._deadline,
        )
        self._polling = True
        context.call_sub_orchestrator(HTTP_POLLING, polling, expected_type=HttpResponse)._add_waiter(self)

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel()` ended it."""
        return isinstance(self._outcome, TaskCancelled)

    def cancel(self) -> None:
        """Cancel the request, or the wait for its next attempt. See `CallTask.cancel`.

        Raises OrchestratorError once the server has accepted the request: the polling sub-orchestration ends by
        `poll_timeout`, or a client terminates it.
        """
        if self._polling and not self.is_completed:
            super().cancel()
        self._sent.cancel()

    def _describe(self) -> str:
        return f"HTTP {self._request.method} {self._request.uri}"


def _question(request: HttpRequest, address: str, came_from: str) -> HttpRequest:
    """The GET request of a poll. It is not a new logical call, and is repeated if it fails."""
    asking = onward(request, address, method="GET", came_from=request.uri)
    headers = {name: value for name, value in asking.headers.items() if name.lower() not in ABOUT_CONTENT}
    return msgspec.structs.replace(
        asking, headers=headers, content=None, form="", idempotent=False, retry_statuses=(), attempts=1
    )


def pause(asked: int | None, interval: int) -> int:
    """The pause before the next poll: the server's wish, but at least a second unless the caller sets less."""
    return interval if asked is None else max(asked, min(interval, SHORTEST_PAUSE))


def _positive(duration: Seconds, what: str) -> int:
    value = micros(duration)
    if value <= 0:
        raise ValueError(f"{what} must be more than 0 seconds, not {duration!r}")
    return value
