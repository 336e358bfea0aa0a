"""The connection to a server: sends commands and queries, and raises the errors in its responses."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx2
import msgspec

from perdure.errors import EngineStopped, OutcomeUnknown, PayloadError, StoreInUse, error_of
from perdure.http.api.instance_urls import MANAGEMENT
from perdure.http.api.management import LONGEST_WAIT
from perdure.http.remote.requests import ApiRequest, Query, instance_path, request_of
from perdure.model.instances import RuntimeStatus
from perdure.model.messages import Message


class HttpGateway:
    """The `Commands` of a server reached over HTTP. `RemoteClient` sends queries as requests of their own."""

    def __init__(
        self,
        base_url: str,
        *,
        hub: str | None = None,
        key: str | None = None,
        timeout: float = 30.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.hub = hub or ""
        is_local = urlsplit(self.base_url).hostname in ("localhost", "127.0.0.1", "::1")
        self._http = httpx2.AsyncClient(
            base_url=self.base_url + MANAGEMENT,
            headers={"x-functions-key": key} if key else {},
            timeout=timeout,
            transport=transport,
            trust_env=not is_local,  # a proxy cannot reach this machine's loopback
        )

    @property
    def replaces_running(self) -> bool:
        return False

    async def accept(self, message: Message) -> Any:
        """Send a message and return its result."""
        return await self.send(request_of(message), getattr(message, "operation_id", ""))

    async def send(self, sent: ApiRequest, operation_id: str | None) -> Any:
        """Send a request that changes something and return its result."""
        key = operation_id or uuid.uuid4().hex
        headers = {**_trace(), **sent.headers, "Idempotency-Key": key, "Content-Type": "application/json"}
        try:
            response = await self._http.request(
                sent.method, sent.path, params=self._query(sent.query), content=sent.body, headers=headers
            )
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise self._unreachable(error) from error
        except httpx2.TransportError as error:
            raise OutcomeUnknown(
                f"the response of {self.base_url} was lost ({_said(error)}). The request may or may not have taken "
                "effect. Repeat it with the same operation id"
            ) from error
        return sent.answer(_content(response))

    async def ask(
        self, path: str, query: Query, headers: Mapping[str, str] | None = None
    ) -> tuple[Any, httpx2.Headers]:
        """Send a query and return the response's content and headers."""
        try:
            response = await self._http.get(
                path,
                params=self._query(query),
                headers=dict(headers or {}),
                timeout=httpx2.Timeout(self._http.timeout.read or 30.0, read=LONGEST_WAIT + 30.0),
            )
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error
        return _content(response), response.headers

    @asynccontextmanager
    async def stream(
        self, path: str, headers: Mapping[str, str], silence: float
    ) -> AsyncIterator[httpx2.Response]:
        """A response to read as it arrives. After `silence` seconds without a byte it counts as broken."""
        timeout = httpx2.Timeout(self._http.timeout.read or 30.0, read=silence)
        request = self._http.build_request(
            "GET", path, params=self._query({}), headers=dict(headers), timeout=timeout
        )
        response = await self._http.send(request, stream=True)
        try:
            if not response.is_success:
                await response.aread()
                _raise(response)
            yield response
        finally:
            await response.aclose()

    async def finished(self, instance_id: str, timeout: float | None) -> None:
        """Poll with long requests, each as long as the server allows."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LONGEST_WAIT if deadline is None else min(LONGEST_WAIT, deadline - time.monotonic())
            wait = max(left, 0.0)
            found, _ = await self.ask(instance_path(instance_id), {"wait": wait, "showInput": False})
            if RuntimeStatus(found["runtimeStatus"]).is_finished:
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"instance {instance_id!r} has not finished within {timeout} seconds")

    def now(self) -> int:
        return time.time_ns() // 1_000

    def new_instance_id(self) -> str:
        return uuid.uuid4().hex

    def has_orchestrator(self, name: str) -> None:
        """Unknown here: the server checks the name when it starts the orchestrator."""

    def has_entity(self, name: str) -> None:
        """Unknown here: the server checks the name when it signals the entity."""

    def operation_guard(self, entity: str, operation: str) -> None:
        """None: the application's types are known to the server only."""

    async def aclose(self) -> None:
        await self._http.aclose()

    def _query(self, query: Query) -> httpx2.QueryParams:
        given = {**query, "taskHub": self.hub or None}
        pairs: list[tuple[str, str | int | float | bool | None]] = []
        for name, value in given.items():
            values = value if isinstance(value, list) else [value]
            pairs.extend((name, _text(one)) for one in values if one is not None and one != "")
        return httpx2.QueryParams(pairs)

    def _unreachable(self, error: Exception) -> EngineStopped:
        return EngineStopped(
            f"cannot reach {self.base_url} ({_said(error)}). Is `perdure run` running there?"
        )


def _trace() -> dict[str, str]:
    """The headers of the caller's current span, if the program uses OpenTelemetry: nothing is imported for it."""
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from perdure.telemetry.propagation import headers_out

    return headers_out()


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _content(response: httpx2.Response) -> Any:
    """The content of a 2xx response. Any other response raises its error."""
    if response.is_success:
        return msgspec.json.decode(response.content) if response.content else None
    _raise(response)


def _raise(response: httpx2.Response) -> NoReturn:
    try:
        problem = msgspec.json.decode(response.content, type=dict[str, Any])
    except msgspec.DecodeError:
        problem = {}
    code = problem.get("code", "")
    detail = str(problem.get("detail") or f"the server responded with status {response.status_code}")
    if code == "timeout":
        raise TimeoutError(detail)
    kind = error_of(code)
    if issubclass(kind, PayloadError):
        raise kind(detail, str(problem.get("pointer", "")))
    holder = str(problem.get("holder") or "")
    if issubclass(kind, StoreInUse):
        raise kind(detail, holder)
    raise kind(detail) from (StoreInUse(detail, holder) if holder else None)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


__all__ = ["HttpGateway"]
