"""Where a client's verbs go: commands to whatever serves the hub, questions to its store."""

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
    from perdure.model.waiting import Pulse
    from perdure.store.port import ClientStore

T = TypeVar("T")


class Commands(Protocol):
    """What every client needs, also one that reaches its hub through a server."""

    @property
    def hub(self) -> str: ...

    async def accept(self, message: Message) -> Any:
        """Hand a message over; returns its answer once the commit that took it up is durable."""

    async def finished(self, instance_id: str, timeout: float | None) -> OrchestrationStatus | None:
        """Return when the instance has finished, with its status if it is at hand. Raises TimeoutError."""

    def now(self) -> int:
        """The hub's present time in microseconds."""

    def new_instance_id(self) -> str:
        """A fresh id nobody has."""

    def has_orchestrator(self, name: str) -> None:
        """Raise FunctionNotFound when this application is known not to have it."""

    def has_entity(self, name: str) -> None:
        """Raise FunctionNotFound when no worker is known to have it; the name is in lower case."""

    def operation_guard(self, entity: str, operation: str) -> payload.Guard | None:
        """What an operation's input has to pass to be read whole, where the entity is known here."""


class Questions(Protocol):
    """What a client asks of a store that this process has open. A server answers these by requests of their own."""

    @property
    def store(self) -> ClientStore: ...

    async def read(self, question: Callable[[], T], *, brief: bool = False) -> T:
        """Ask the store, off the event loop unless the answer is a matter of microseconds."""

    def watching(self, instance_no: int | None) -> AbstractContextManager[Bell]:
        """A bell that rings when this instance, or any with None, has changed. Raises Overloaded."""

    def pulses(self, executions: Mapping[str, str]) -> Mapping[tuple[str, int], Pulse]:
        """What is known of running activities, by execution id and task id.

        `executions` names the executions that are asked about, each with its instance.
        """

    async def record(self, memo: AuditMemo) -> None:
        """Write keys and rows of the audit log; returns once they are durable."""

    def salt_at_hand(self, instance_id: str) -> bytes | None:
        """What an instance was born with, if that is known without asking the store."""


class Gateway(Commands, Questions, Protocol):
    """Both, for a client in process: the engine, or a store that others serve."""


class Links(Protocol):
    """A host that can be reached by HTTP tells the client which URLs lead to an instance."""

    def management(self, request: Any, instance_id: str) -> dict[str, Any]:
        """Azure's management payload: id, statusQueryGetUri, sendEventPostUri, ...: what the caller may have."""

    def hides(self, request: Any, instance_id: str) -> bool:
        """Whether the caller of a request is told nothing of this instance."""

    def status_url(self, request: Any, instance_id: str) -> str:
        """The one URL of these where the instance's status is asked for."""

    def check_status_response(self, request: Any, instance_id: str) -> Any:
        """The 202 response with Location, Retry-After and the management payload."""

    def completed_response(self, request: Any, status: OrchestrationStatus) -> Any:
        """The response for an instance that finished in time."""

    async def event_link(
        self, request: Any, instance_id: str, event_name: str, lasts: int, once: bool
    ) -> str:
        """A signed link by which somebody without a key raises one event; `lasts` is in microseconds."""


__all__ = ["Commands", "Gateway", "Links", "Questions"]
