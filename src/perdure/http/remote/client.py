"""`Client` at the other end of the wire: the same verbs, over the management API.

A verb is a message, as in process; this module only says which request carries which message. Errors come
back as the exceptions the verb would have raised in process, found by the `code` of the problem document.
Every changing request bears an `Idempotency-Key`, so that one whose answer got lost can be repeated by the
caller with the same id: then `OutcomeUnknown` is raised, and never a guess made.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar
from urllib.parse import urlsplit

import httpx2
import msgspec

from perdure.engine.client.bulk import BulkOutcome, BulkPage, BulkRequest, Which
from perdure.engine.client.client import Client
from perdure.errors import (
    EngineStopped,
    InstanceNotFound,
    OutcomeUnknown,
    PayloadError,
    error_of,
)
from perdure.http.api.management import LONGEST_WAIT
from perdure.http.api.status_json import status_from
from perdure.http.parameters import CONTINUATION
from perdure.http.remote.access import RemoteAccess
from perdure.http.remote.entities import RemoteEntities, path_of, query_of
from perdure.http.remote.request import Query, Sent
from perdure.http.remote.watching import RemoteWatching
from perdure.http.timestamps import stamp
from perdure.http.urls import MANAGEMENT, RequestLinks, quoted
from perdure.model.durations import moment
from perdure.model.instances import OrchestrationStatus, Page, PurgeHistoryResult, RuntimeStatus
from perdure.model.messages import (
    EntityOperation,
    Message,
    Purge,
    RaiseEvent,
    Resume,
    Rewind,
    Start,
    Suspend,
    Terminate,
)
from perdure.model.workers import Partition, Worker
from perdure.triggers.names import MESSAGE, message_id, queue_of, schedule_id
from perdure.triggers.queue_orchestration import Message as Letter
from perdure.triggers.schedule_orchestration import CONTROL, Control

if TYPE_CHECKING:
    from datetime import datetime

    from perdure.engine.client.watching import Bell
    from perdure.engine.core.audit import Memo
    from perdure.model.waiting import Pulse
    from perdure.store.port import ClientStore

T = TypeVar("T")


class HttpGateway:
    """The `Gateway` of a server reached by HTTP. It has no store: `RemoteClient` asks by requests instead."""

    store: ClientStore

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
            trust_env=not is_local,  # a proxy has no way to this machine's loopback
        )

    async def accept(self, message: Message) -> Any:
        """Send a message; returns the verb's answer."""
        return await self.send(_REQUESTS[type(message)](message), getattr(message, "operation_id", ""))

    async def send(self, sent: Sent, operation_id: str | None) -> Any:
        """Send a request that changes something; returns what its answer says."""
        key = operation_id or uuid.uuid4().hex
        headers = {**sent.headers, "Idempotency-Key": key, "Content-Type": "application/json"}
        try:
            response = await self._http.request(
                sent.method, sent.path, params=self._query(sent.query), content=sent.body, headers=headers
            )
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise self._unreachable(error) from error
        except httpx2.TransportError as error:
            raise OutcomeUnknown(
                f"the answer of {self.base_url} got lost ({_said(error)}): it may or may not be done; "
                "repeat it with the same operation id"
            ) from error
        return sent.answer(_content(response))

    async def ask(
        self, path: str, query: Query, headers: Mapping[str, str] | None = None
    ) -> tuple[Any, httpx2.Headers]:
        """Send a question; returns what was answered and its headers."""
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
        """An answer to be read as it comes; after `silence` seconds without a byte it counts as broken."""
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
        """Ask again and again, each time as long as the server keeps a request waiting."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LONGEST_WAIT if deadline is None else min(LONGEST_WAIT, deadline - time.monotonic())
            wait = max(left, 0.0)
            found, _ = await self.ask(_instance(instance_id), {"wait": wait, "showInput": False})
            if RuntimeStatus(found["runtimeStatus"]).is_finished:
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"instance {instance_id!r} has not finished within {timeout} seconds")

    async def read(self, question: Callable[[], T], *, brief: bool = False) -> T:
        """Never called: the verbs that ask are written anew in `RemoteClient`."""
        return question()

    async def record(self, memo: Memo) -> None:
        """Never called: the server writes its own."""
        raise AssertionError("a remote client records nothing")

    def watching(self, instance_no: int | None) -> AbstractContextManager[Bell]:
        """Never called: the server rings, see `perdure.http.remote.watching`."""
        raise AssertionError("a remote client is told by its server")

    def pulses(self, executions: Mapping[str, str]) -> dict[tuple[str, int], Pulse]:
        """The server's answers have them in their sentences already."""
        return {}

    def now(self) -> int:
        return time.time_ns() // 1_000

    def new_instance_id(self) -> str:
        return uuid.uuid4().hex

    def salt_at_hand(self, instance_id: str) -> bytes | None:
        return None

    def has_orchestrator(self, name: str) -> None:
        """The server knows, and says so when asked to start it."""

    def has_entity(self, name: str) -> None:
        """The server knows, and says so when asked to signal it."""

    def operation_guard(self, entity: str, operation: str) -> None:
        """The application's types are not known here."""

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
        return EngineStopped(f"cannot reach {self.base_url} ({_said(error)}): is `perdure run` running?")


class RemoteClient(RemoteWatching, RemoteEntities, RemoteAccess, Client):
    """A client of a server at `base_url`, such as http://localhost:7071. Close it, or use `async with`.

    Links that it makes lead to that server and are not signed: whoever follows them shows a key.
    """

    def __init__(
        self,
        base_url: str,
        *,
        hub: str | None = None,
        key: str | None = None,
        timeout: float = 30.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._remote = HttpGateway(base_url, hub=hub, key=key, timeout=timeout, transport=transport)
        super().__init__(self._remote, RequestLinks(public_url=self._remote.base_url))

    async def restart(
        self,
        instance_id: str,
        restart_with_new_instance_id: bool = True,
        *,
        operation_id: str | None = None,
    ) -> str:
        query = {"restartWithNewInstanceId": restart_with_new_instance_id}
        sent = Sent("POST", f"{_instance(instance_id)}/restart", query, answer=lambda answer: answer["id"])
        restarted: str = await self._remote.send(sent, operation_id)
        return restarted

    async def get_status(
        self,
        instance_id: str,
        show_history: bool = False,
        show_history_output: bool = False,
        show_input: bool = False,
        *,
        execution: int | None = None,
    ) -> OrchestrationStatus | None:
        query = {
            "showHistory": show_history,
            "showHistoryOutput": show_history_output,
            "showInput": show_input,
            "execution": execution,
        }
        try:
            found, _ = await self._remote.ask(_instance(instance_id), query)
        except InstanceNotFound:
            return None
        return status_from(found)

    async def query(
        self,
        *,
        status: Sequence[RuntimeStatus | str] | RuntimeStatus | str = (),
        name: str | None = None,
        prefix: str | None = None,
        tags: Mapping[str, str] | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        waiting_for: str | None = None,
        parked: bool = False,
        top: int = 100,
        continuation: str | None = None,
        show_input: bool = False,
    ) -> Page:
        which = Which(
            status=status,
            name=name,
            prefix=prefix,
            tags=tags,
            created_from=created_from,
            created_to=created_to,
            waiting_for=waiting_for,
            parked=parked,
        )
        query = {**_filters(which), "top": top, "showInput": show_input}
        headers = {CONTINUATION: continuation} if continuation else {}
        found, answered = await self._remote.ask("/instances", query, headers)
        return Page([status_from(document) for document in found], answered.get(CONTINUATION))

    async def purge_instance_history(
        self, instance_id: str, *, recursive: bool = False, operation_id: str | None = None
    ) -> PurgeHistoryResult:
        if not recursive:
            return await super().purge_instance_history(instance_id, operation_id=operation_id)
        sent = Sent(
            "DELETE",
            _instance(instance_id),
            {"recursive": True},
            answer=lambda answer: int(answer["instancesDeleted"]),
        )
        try:
            return PurgeHistoryResult(await self._remote.send(sent, operation_id))
        except InstanceNotFound:
            return PurgeHistoryResult(0)

    async def counts(self) -> dict[str, int]:
        found, _ = await self._remote.ask("/counts", {})
        return dict(found)

    async def workers(self) -> list[Worker]:
        found, _ = await self._remote.ask("/workers", {})
        return msgspec.convert(found, list[Worker])

    async def partitions(self) -> list[Partition]:
        found, _ = await self._remote.ask("/partitions", {})
        return msgspec.convert(found, list[Partition])

    async def bulk_preview(self, verb: str, which: Which) -> BulkOutcome:
        found, _ = await self._remote.ask(f"/bulk/{verb}", _filters(which))
        return msgspec.convert(found, BulkOutcome)

    async def bulk_page(
        self, asked: BulkRequest, which: Which, continuation: str | None, top: int
    ) -> BulkPage:
        query = {**_filters(which), "all": True, "top": top, "reason": asked.reason}
        if asked.recursive:
            query["recursive"] = True
        headers = {CONTINUATION: continuation} if continuation else {}
        sent = Sent(
            "POST",
            f"/bulk/{asked.verb}",
            query,
            answer=lambda answer: msgspec.convert(answer, BulkPage),
            headers=headers,
        )
        page: BulkPage = await self._remote.send(sent, None)
        return page

    async def aclose(self) -> None:
        """Close the connections."""
        await self._remote.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


# --------------------------------------------------------------------------------- messages as requests


def _instance(instance_id: str) -> str:
    return f"/instances/{quoted(instance_id)}"


def _start(message: Start) -> Sent:
    if message.name == MESSAGE:
        return _message(message)
    query = {
        "version": message.version,
        "startAt": stamp(moment(message.visible_at)) if message.visible_at else None,
        "tag": _tags(message.tags),
        "onExisting": message.on_existing,
    }
    path = f"/orchestrators/{quoted(message.name)}"
    # A made-up id would be another one in the repeat of a named request: the server makes it up, once.
    if not (message.fresh and message.operation_id):
        path += f"/{quoted(message.instance_id)}"
    return Sent("POST", path, query, bytes(message.input), lambda answer: answer["id"])


def _message(message: Start) -> Sent:
    """A message of a queue is an instance of a built-in, which is not started by its name."""
    letter = msgspec.json.decode(message.input, type=Letter)
    query = {
        "messageId": message.instance_id.removeprefix(message_id(letter.queue, "")),
        "at": stamp(moment(message.visible_at)) if message.visible_at else None,
    }
    body = b"" if letter.empty else bytes(letter.body)
    return Sent("POST", f"/queues/{quoted(letter.queue)}", query, body, lambda answer: answer["id"])


def _raise_event(message: RaiseEvent) -> Sent:
    if message.name == CONTROL and message.instance_id.startswith(schedule_id("")):
        return _order(message)
    path = f"{_instance(message.instance_id)}/raiseEvent/{quoted(message.name)}"
    return Sent("POST", path, {}, bytes(message.input))


def _order(message: RaiseEvent) -> Sent:
    """An order to a schedule is sent as what it is, and not as the event that carries it."""
    order = msgspec.json.decode(message.input, type=Control)
    query = {
        "reason": order.reason,
        "after": stamp(moment(order.after)) if order.after else None,
        "until": stamp(moment(order.until)) if order.until else None,
    }
    name = message.instance_id.removeprefix(schedule_id(""))
    return Sent("POST", f"/schedules/{quoted(name)}/{order.verb}", query)


def _rewind(message: Rewind) -> Sent:
    queue = queue_of(message.instance_id)
    if not queue:
        return _control("rewind")(message)
    path = f"/queues/{quoted(queue)}/dead/{quoted(message.instance_id)}/redeliver"
    return Sent("POST", path, {"reason": message.reason})


def _control(verb: str) -> Callable[[Any], Sent]:
    def request(message: Terminate | Suspend | Resume | Rewind) -> Sent:
        query: Query = {"reason": message.reason}
        if isinstance(message, Terminate) and message.recursive:
            query["recursive"] = True
        return Sent("POST", f"{_instance(message.instance_id)}/{verb}", query)

    return request


def _purge(message: Purge) -> Sent:
    return Sent("DELETE", _instance(message.instance_id), {})


def _operation(message: EntityOperation) -> Sent:
    return Sent("POST", path_of(message.instance_id), query_of(message), bytes(message.input))


_REQUESTS: dict[type, Callable[[Any], Sent]] = {
    Start: _start,
    RaiseEvent: _raise_event,
    EntityOperation: _operation,
    Terminate: _control("terminate"),
    Suspend: _control("suspend"),
    Resume: _control("resume"),
    Rewind: _rewind,
    Purge: _purge,
}


def _filters(which: Which) -> Query:
    status = which.get("status", ())
    created_from, created_to = which.get("created_from"), which.get("created_to")
    return {
        "runtimeStatus": ",".join([status] if isinstance(status, str) else status),
        "name": which.get("name"),
        "instanceIdPrefix": which.get("prefix"),
        "tag": _tags(which.get("tags")),
        "createdTimeFrom": stamp(created_from) if created_from else None,
        "createdTimeTo": stamp(created_to) if created_to else None,
        "waitingFor": which.get("waiting_for"),
        "parked": which.get("parked") or None,
    }


def _tags(tags: Mapping[str, str] | None) -> list[str]:
    return [f"{name}={value}" for name, value in (tags or {}).items()]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# ------------------------------------------------------------------------------------ answers as errors


def _content(response: httpx2.Response) -> Any:
    """What a 2xx says; anything else is raised as the error it stands for."""
    if response.is_success:
        return msgspec.json.decode(response.content) if response.content else None
    _raise(response)


def _raise(response: httpx2.Response) -> NoReturn:
    try:
        problem = msgspec.json.decode(response.content, type=dict[str, Any])
    except msgspec.DecodeError:
        problem = {}
    code = problem.get("code", "")
    detail = str(problem.get("detail") or f"the server answered {response.status_code}")
    if code == "timeout":
        raise TimeoutError(detail)
    kind = error_of(code)
    if issubclass(kind, PayloadError):
        raise kind(detail, str(problem.get("pointer", "")))
    raise kind(detail)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


__all__ = ["HttpGateway", "RemoteClient"]
