"""The ports of the dispatcher: its limits, functions and random source, and what a durable batch releases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from perdure.engine.core.noted import Noted
from perdure.engine.interrupting import put_away
from perdure.errors import RegistrationError
from perdure.model.messages import Message
from perdure.model.readings import Reading
from perdure.model.settings import BYTES, COUNT, SECONDS, setting
from perdure.replay.decide import Code
from perdure.replay.entity import EntityCode
from perdure.replay.environment import Environment
from perdure.replay.settle import Invocation

if TYPE_CHECKING:
    from perdure.engine.core.instance import Instance
    from perdure.engine.core.tracing import Traced
    from perdure.model.events import HistoryEvent, LoopHeld
    from perdure.replay.decide import Execution

T = TypeVar("T")
OWNER_ANSWERS_WITHIN: Final = 5_000_000  # microseconds in which an owner must answer
ANSWER_KEPT: Final = 600_000_000  # microseconds that an answer is kept for the requesting worker


@dataclass(frozen=True)
class Limits:
    """The limits of one batch and of the cache."""

    episodes: int = setting(
        1_000, "the most messages processed in one batch", COUNT, least=1, name="batch_episodes"
    )
    feeds: int = setting(
        100, "the most messages of one instance processed in one batch", COUNT, least=1, name="batch_feeds"
    )
    seconds: float = setting(
        0.02, "how long a batch collects messages before it is stored", SECONDS, name="batch_seconds"
    )
    row_bytes: int = setting(
        4 * 1024 * 1024, "the most history written in one batch", BYTES, least=1, name="batch_bytes"
    )
    inline_bytes: int = setting(
        16 * 1024, "payloads larger than this are stored in a separate table", BYTES, least=0
    )
    buffered_events: int = setting(
        2_000, "the most events that an instance stores before it waits for them", COUNT, least=0
    )
    warm_bytes: int = setting(512 * 1024 * 1024, "the memory for executions that stay loaded", BYTES, least=0)
    keep_executions: int = setting(
        1, "the executions of an instance whose history is kept across continue-as-new", COUNT, least=1
    )

    def __post_init__(self) -> None:
        if self.keep_executions < 1:
            raise RegistrationError(f"keep_executions must be 1 or more, not {self.keep_executions!r}")


class OrchestratorEntry(Protocol):
    """An orchestrator, as a batch uses it."""

    code: Code
    version: str

    def admit(self, event_name: str, body: msgspec.Raw, known: Reading | None = None) -> Reading | None: ...


class Functions(Protocol):
    """The functions of this worker; none when it only accepts messages."""

    @property
    def environment(self) -> Environment: ...

    def orchestrator(self, name: str, version: str | None = None) -> OrchestratorEntry | None:
        """The code of an instance pinned to `version`; with None the code of a new instance."""

    def refuses(self, version: str) -> bool:
        """Whether instances of this version fail here instead of waiting."""

    @property
    def fails_on_nondeterminism(self) -> bool:
        """Whether an instance fails, instead of being parked, when its code does not match its history."""

    def missing(self, name: str, version: str) -> str:
        """Why this worker has no code for an instance, as a clause."""

    def entity(self, name: str) -> EntityCode | None: ...


class Running:
    """Runs user code on the loop's thread; a subclass adds the watchdog.

    `notice` is the event to record if the code that has just returned took long.
    """

    __slots__ = ("notice",)

    def __init__(self) -> None:
        self.notice: LoopHeld | None = None

    def run(self, instance: Instance, code: Callable[..., T], *given: Any) -> T:
        """Call `code`. Raises Interrupted if it was interrupted, even if it swallowed the exception."""
        return code(*given)

    def aside(self, work: Callable[[], None]) -> None:
        """Do work of the engine's own, perhaps in the middle of the code. No interruption of the code reaches it."""
        work()

    def close(self, instance: Instance, execution: Execution) -> None:
        """Close the code of an instance, even if the code resists."""
        put_away(execution)


class Unwritten(msgspec.Struct, frozen=True):
    """The last episode of an execution whose history the same commit deletes: it has no row."""

    instance: Instance
    execution_no: int
    trace: str
    at: int
    events: Sequence[HistoryEvent]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to another worker with an awaited answer. `reply` is the client's future."""

    request_id: str
    message: Message
    reply: Any
    until: int


class Released(msgspec.Struct):
    """The effects that leave the process once the batch is durable. A struct: one is made for each batch."""

    answers: list[tuple[Any, Any]] = msgspec.field(default_factory=list)  # reply, value or exception
    invocations: list[Invocation] = msgspec.field(default_factory=list)
    cancelled: list[tuple[str, int]] = msgspec.field(default_factory=list)  # execution id, task id
    ended: set[str] = msgspec.field(
        default_factory=set
    )  # executions terminated or purged, whose activities end
    finished: list[Instance] = msgspec.field(default_factory=list)
    started: list[str] = msgspec.field(default_factory=list)
    due: list[tuple[int, str]] = msgspec.field(default_factory=list)
    visible: list[int] = msgspec.field(default_factory=list)
    parked: list[tuple[str, str, str]] = msgspec.field(default_factory=list)  # instance id, reason, name
    noted: list[Noted] = msgspec.field(default_factory=list)
    asked: list[Asked] = msgspec.field(default_factory=list)  # requests to other workers
    hints: set[int] = msgspec.field(default_factory=set)  # incarnations to notify
    touched: dict[int, Instance] = msgspec.field(default_factory=dict)  # with rows in the batch, by number
    unwritten: list[Unwritten] = msgspec.field(default_factory=list)  # filled if something listens
    traced: list[Traced] = msgspec.field(default_factory=list)  # for spans; empty without a tracer

    def forget_cancelled(self) -> None:
        """Drop activities that were scheduled and cancelled within one batch."""
        cancelled = set(self.cancelled)
        self.invocations = [
            i
            for i in self.invocations
            if (i.execution_id, i.task_id) not in cancelled and i.execution_id not in self.ended
        ]


@dataclass(frozen=True)
class RandomSource:
    """The random bytes and the clock of the dispatcher, which has none of its own: a test can supply both."""

    salt: Callable[[], bytes]
    monotonic: Callable[[], float]
