"""The client's ports: commands go to the engine that serves the hub, questions to its store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from perdure.model import payload
from perdure.model.instances import OrchestrationStatus
from perdure.model.messages import Message

if TYPE_CHECKING:
    from perdure.engine.client.watching import Bell
    from perdure.engine.core.audit import AuditMemo
    from perdure.failure import Failure
    from perdure.model.human_tasks import Person
    from perdure.model.waiting import Pulse
    from perdure.store.port import ClientStore

T = TypeVar("T")


class Commands(Protocol):
    """The commands of every client, including a client of a server."""

    @property
    def hub(self) -> str: ...

    async def accept(self, message: Message) -> Any:
        """Send a message; returns its answer after the commit that processed it."""

    async def finished(self, instance_id: str, timeout: float | None) -> OrchestrationStatus | None:
        """Return when the instance has finished, with its status if that is known. Raises TimeoutError."""

    def now(self) -> int:
        """The hub's current time in microseconds."""

    def new_instance_id(self) -> str:
        """A new, unused id."""

    def has_orchestrator(self, name: str) -> None:
        """Raise FunctionNotFound when the application certainly lacks the function."""

    def has_entity(self, name: str) -> None:
        """Raise FunctionNotFound when no known worker has the entity; the name is in lower case."""

    @property
    def replaces_running(self) -> bool:
        """Whether a start replaces an instance that has not finished. A server decides it for its clients."""

    def operation_guard(self, entity: str, operation: str) -> payload.Guard | None:
        """The check of an operation's input for loss, if this process knows the entity."""


class Questions(Protocol):
    """The reads of a client whose store this process has open. A client of a server sends requests instead."""

    @property
    def store(self) -> ClientStore: ...

    async def read(self, question: Callable[[], T], *, brief: bool = False) -> T:
        """Query the store; on a thread, unless the answer takes only microseconds."""

    def watching(self, instance_no: int | None) -> AbstractContextManager[Bell]:
        """A bell that rings when this instance, or any with None, has changed. Raises Overloaded."""

    def pulses(self, executions: Mapping[str, str]) -> Mapping[tuple[str, int], Pulse]:
        """The heartbeats and progress of running activities, by execution id and task id.

        `executions` maps the ids of the wanted executions to their instances.
        """

    async def record(self, memo: AuditMemo) -> None:
        """Write keys and rows of the audit log; returns once they are durable."""

    def salt_at_hand(self, instance_id: str) -> bytes | None:
        """The salt of an instance, if it is known without a query."""

    def output_of_failure(self, name: str, failure: Failure) -> str:
        """The output of an instance of this orchestrator that has failed."""


class Gateway(Commands, Questions, Protocol):
    """Commands and questions for a client in process: the engine, or a store that other workers serve."""


class Links(Protocol):
    """An HTTP host's URLs for an instance."""

    def management(self, request: Any, instance_id: str) -> dict[str, Any]:
        """Azure's management payload: id, statusQueryGetUri, sendEventPostUri, ...; only the entries that the
        caller is allowed.
        """

    def hides(self, request: Any, instance_id: str) -> bool:
        """Whether the caller of a request must not see this instance."""

    def status_url(self, request: Any, instance_id: str) -> str:
        """The URL of the instance's status."""

    def check_status_response(self, request: Any, instance_id: str) -> Any:
        """The 202 response with Location, Retry-After and the management payload."""

    def completed_response(self, request: Any, status: OrchestrationStatus) -> Any:
        """The response for an instance that finished in time."""

    async def event_link(
        self,
        request: Any,
        instance_id: str,
        event_name: str,
        lasts: int,
        once: bool,
        person: Person | None = None,
    ) -> str:
        """A signed link that raises one event without a key; `lasts` is in microseconds."""


__all__ = ["Commands", "Gateway", "Links", "Questions"]
