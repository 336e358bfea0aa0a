"""The port for telemetry: what the engine tells about itself, and to whom.

The engine tells after the commit, once a batch, with references to what the batch holds anyway. An implementation
that follows bodies (`follows_bodies`) also learns when the body of each attempt begins and ends. The loop's thread
and the hosts of the activities call the verbs: an implementation returns at once and raises nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from perdure.engine.core.tracing import TracedEpisode
from perdure.model.records import Batch

if TYPE_CHECKING:
    from perdure.engine.core.instance import Instance
    from perdure.engine.core.ports import Released
    from perdure.model.messages import ActivityResult
    from perdure.replay.settle import Invocation

COMPLETED: Final = "completed"
FAILED: Final = "failed"
TIMED_OUT: Final = "timed_out"
CANCELLED: Final = "cancelled"
"""How an attempt ends."""


class Body(Protocol):
    """An attempt of an activity on this worker.

    `since` is when its body began, by the monotonic clock, and 0.0 before; `seconds` is how long the body took, once
    it has returned. `outcome` is how the attempt ended: completed, failed, timed_out or cancelled; "" until then.
    """

    invocation: Invocation
    since: float
    seconds: float
    outcome: str

    @property
    def where(self) -> str:
        """The host of the body: "event loop", "thread", or the name of an executor."""


class Durable(msgspec.Struct):
    """A batch that was just committed. A struct: one is made for each batch, if somebody listens.

    `attempts` are the attempts of this worker that ended with this batch; of those in `passed_by` the result came
    too late. `decided` is how many seconds it took to make the batch, `seconds` how long the commit took (None for
    starts that were committed early, within the making of another batch), and `let_out` how long the effects of the
    batch before took to leave.
    """

    batch: Batch
    released: Released
    seconds: float | None
    decided: float = 0.0
    let_out: float = 0.0
    attempts: Sequence[Body] = ()
    passed_by: Sequence[Body] = ()

    def trace_of(self, instance: Instance) -> str:
        """The trace of an instance's present execution, also if its code is not in memory; "" if it is not known."""
        if instance.trace or instance.entity_state is not None:
            return instance.trace
        read = (one for one in self.released.traced if isinstance(one, TracedEpisode))
        return next((one.trace for one in read if one.execution_id == instance.execution_id), "")

    @property
    def touched(self) -> dict[int, Instance]:
        """The instances with rows in the batch, by their numbers."""
        return self.released.touched


class Telemetry(Protocol):
    """Gets what the engine tells."""

    @property
    def follows_bodies(self) -> bool:
        """Whether `begun` and `ended` are wanted: two calls for each attempt."""

    def committed(self, durable: Durable) -> None:
        """A batch is durable. On the loop's thread, before clients get their answers."""

    def begun(self, attempt: Body) -> None:
        """The body of an attempt begins. For the event loop and for threads: on the body's own thread."""

    def ended(self, attempt: Body, result: ActivityResult) -> None:
        """The body has returned, perhaps after its deadline. On a thread of its host."""


class Silence:
    """Nobody listens. The engine knows this object and does not call it."""

    follows_bodies = False

    def committed(self, durable: Durable) -> None:
        pass

    def begun(self, attempt: Body) -> None:
        pass

    def ended(self, attempt: Body, result: ActivityResult) -> None:
        pass


SILENCE: Final = Silence()


class Listeners:
    """Several implementations as one."""

    def __init__(self, listeners: Iterable[Telemetry]) -> None:
        self.all = tuple(listeners)
        self._followers = tuple(one for one in self.all if one.follows_bodies)

    @property
    def follows_bodies(self) -> bool:
        return bool(self._followers)

    def committed(self, durable: Durable) -> None:
        failure: Exception | None = None
        for one in self.all:
            try:
                one.committed(durable)
            except Exception as error:
                failure = error  # a fault in one does not keep the others from the batch
        if failure is not None:
            raise failure

    def begun(self, attempt: Body) -> None:
        for one in self._followers:
            one.begun(attempt)

    def ended(self, attempt: Body, result: ActivityResult) -> None:
        for one in reversed(self._followers):
            one.ended(attempt, result)


def listeners_of(telemetry: Telemetry) -> tuple[Telemetry, ...]:
    """The implementations that `together` has made one of."""
    return telemetry.all if isinstance(telemetry, Listeners) else (telemetry,)


def together(listeners: Iterable[Telemetry]) -> Telemetry:
    """One implementation for any number of them; SILENCE for none."""
    given = [one for some in listeners for one in listeners_of(some) if one is not SILENCE]
    match given:
        case []:
            return SILENCE
        case [only]:
            return only
        case _:
            return Listeners(given)


__all__ = ["SILENCE", "Body", "Durable", "Telemetry", "listeners_of", "together"]
