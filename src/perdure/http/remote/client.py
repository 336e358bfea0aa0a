"""A `Client` of a server in another process: the same methods, over the management API.

A method sends a message, as in process. This module maps messages to requests. An error raises the same exception as
in process, found by the `code` of the problem document. Every request that changes something has an
`Idempotency-Key`. If its response is lost, the client raises `OutcomeUnknown` instead of guessing, and the caller can
repeat the call with the same id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, Unpack, cast

import httpx2
import msgspec

from perdure.engine.client.bulk import BulkOutcome, BulkPage, BulkRequest, Which
from perdure.engine.client.client import Client
from perdure.errors import (
    InstanceNotFound,
)
from perdure.http.api.instance_urls import RequestLinks
from perdure.http.api.status_json import status_from
from perdure.http.parameters import CONTINUATION, SEARCHED_FROM
from perdure.http.remote.access import RemoteAccess
from perdure.http.remote.entities import RemoteEntities
from perdure.http.remote.gateway import HttpGateway
from perdure.http.remote.requests import ApiRequest, filters_of, instance_path
from perdure.http.remote.tasks import RemoteTasks
from perdure.http.remote.watching import RemoteWatching
from perdure.http.timestamps import unstamp
from perdure.model.instances import (
    InstanceCount,
    OrchestrationStatus,
    Page,
    PurgeHistoryResult,
    RuntimeStatus,
)
from perdure.model.statistics import HubStatistics, Window
from perdure.model.workers import Partition, Worker

if TYPE_CHECKING:
    from datetime import datetime

    from perdure.engine.client.gateway import Gateway
    from perdure.engine.client.searching import Order


class RemoteClient(RemoteWatching, RemoteEntities, RemoteTasks, RemoteAccess, Client):
    """A client of the server at `base_url`, such as http://localhost:7071. Close it, or use `async with`.

    The links that it makes lead to that server and are not signed. A request to them needs a key.
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
        # The gateway only sends commands. Every query is a request of its own, below or in the base classes.
        super().__init__(cast("Gateway", self._remote), RequestLinks(public_url=self._remote.base_url))

    async def restart(
        self,
        instance_id: str,
        restart_with_new_instance_id: bool = True,
        *,
        operation_id: str | None = None,
    ) -> str:
        query = {"restartWithNewInstanceId": restart_with_new_instance_id}
        sent = ApiRequest(
            "POST", f"{instance_path(instance_id)}/restart", query, answer=lambda answer: answer["id"]
        )
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
            found, _ = await self._remote.ask(instance_path(instance_id), query)
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
        ended_from: datetime | None = None,
        ended_to: datetime | None = None,
        waiting_for: str | None = None,
        parked: bool = False,
        failure: str | None = None,
        parent: str | None = None,
        built_in: bool = True,
        order: Order = "newest",
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
            ended_from=ended_from,
            ended_to=ended_to,
            waiting_for=waiting_for,
            parked=parked,
            failure=failure,
            parent=parent,
            built_in=built_in,
        )
        query = {**filters_of(which), "order": order, "top": top, "showInput": show_input}
        headers = {CONTINUATION: continuation} if continuation else {}
        found, answered = await self._remote.ask("/instances", query, headers)
        searched_from = answered.get(SEARCHED_FROM)
        return Page(
            [status_from(document) for document in found],
            answered.get(CONTINUATION),
            unstamp(searched_from) if searched_from else None,
        )

    async def purge_instance_history(
        self, instance_id: str, *, recursive: bool = False, operation_id: str | None = None
    ) -> PurgeHistoryResult:
        if not recursive:
            return await super().purge_instance_history(instance_id, operation_id=operation_id)
        sent = ApiRequest(
            "DELETE",
            instance_path(instance_id),
            {"recursive": True},
            answer=lambda answer: int(answer["instancesDeleted"]),
        )
        try:
            return PurgeHistoryResult(await self._remote.send(sent, operation_id))
        except InstanceNotFound:
            return PurgeHistoryResult(0)

    async def trace(self, instance_id: str) -> dict[str, Any]:
        """The spans of an instance and its sub-orchestrations, as a document of OTLP."""
        found, _ = await self._remote.ask(f"{instance_path(instance_id)}/trace", {})
        return dict(found)

    async def count(self, **which: Unpack[Which]) -> InstanceCount:
        found, _ = await self._remote.ask("/count", filters_of(which))
        return msgspec.convert(found, InstanceCount)

    async def counts(self, *, built_in: bool = True) -> dict[str, int]:
        found, _ = await self._remote.ask("/counts", {"builtIn": built_in})
        return dict(found)

    async def statistics(self, last: Window = "hour") -> HubStatistics:
        found, _ = await self._remote.ask("/statistics", {"last": last})
        return msgspec.convert(found, HubStatistics)

    async def workers(self) -> list[Worker]:
        found, _ = await self._remote.ask("/workers", {})
        return msgspec.convert(found, list[Worker])

    async def partitions(self) -> list[Partition]:
        found, _ = await self._remote.ask("/partitions", {})
        return msgspec.convert(found, list[Partition])

    async def queues(self) -> list[dict[str, Any]]:
        """The queues that the server has functions for, including empty ones, as documents of its API."""
        found, _ = await self._remote.ask("/queues", {})
        return list(found)

    async def bulk_preview(self, verb: str, which: Which) -> BulkOutcome:
        found, _ = await self._remote.ask(f"/bulk/{verb}", filters_of(which))
        return msgspec.convert(found, BulkOutcome)

    async def bulk_page(
        self, asked: BulkRequest, which: Which, continuation: str | None, top: int
    ) -> BulkPage:
        query = {**filters_of(which), "all": True, "top": top, "reason": asked.reason}
        if asked.recursive:
            query["recursive"] = True
        headers = {CONTINUATION: continuation} if continuation else {}
        sent = ApiRequest(
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


__all__ = ["RemoteClient"]
