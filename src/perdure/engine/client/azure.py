"""Verbs of azure-functions-durable's client that `Client` has under other names.

Each verb delegates to one of `Client`. Where Azure returns the first page, these return all pages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from perdure.engine.client.paging import all_pages
from perdure.model.instances import OrchestrationStatus, Page, RuntimeStatus

if TYPE_CHECKING:
    from perdure.engine.client.gateway import Links


class AzureVerbs:
    """The part of `Client` that exists for programs written for Azure."""

    query: Callable[..., Awaitable[Page]]
    _links: Callable[[], Links]

    async def get_status_all(self) -> list[OrchestrationStatus]:
        """Every instance of the hub, newest first, from all pages; `query` returns one page at a time."""
        return await self._all()

    async def get_status_by(
        self,
        created_time_from: datetime | None = None,
        created_time_to: datetime | None = None,
        runtime_status: Sequence[RuntimeStatus | str] | None = None,
        instance_id_prefix: str | None = None,
    ) -> list[OrchestrationStatus]:
        """Every instance that matches, newest first; `query` has more filters and returns one page at a time."""
        return await self._all(
            created_from=created_time_from,
            created_to=created_time_to,
            status=runtime_status or (),
            prefix=instance_id_prefix,
        )

    def get_client_response_links(self, request: Any, instance_id: str) -> dict[str, Any]:
        """The management URLs of this instance: `create_http_management_payload` for a request."""
        return self._links().management(request, instance_id)

    async def _all(self, **which: Any) -> list[OrchestrationStatus]:
        return [found async for found in all_pages(self.query, **which)]


__all__ = ["AzureVerbs"]
