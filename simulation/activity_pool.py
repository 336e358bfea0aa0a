"""The activities: a pool in which results come when the seed says, late, twice or out of order.

A result is lost only with its process. The witness notes every body that ran, as a file outside would.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Raw

from perdure.engine.activities import Attempt, completed
from perdure.failure import Failure
from perdure.model.events import ABSENT
from perdure.model.messages import ActivityResult
from perdure.replay.settle import Invocation
from simulation.abrupt_ends import ended_abruptly
from simulation.activities import ACTIVITIES, answer_of
from simulation.injector import Injector, SimulatedCrash
from simulation.plan import Knobs
from simulation.randomness import SeededRandomness
from simulation.sometimes import Sometimes

Key = tuple[str, int]


class Ran(NamedTuple):
    """One run of an activity's body."""

    instance_id: str
    execution_id: str
    task_id: int
    attempt: int
    idempotency_key: str
    answer: bytes | None  # None for a failure


class FakePool:
    """The same duck as `ActivityPool`; one for each incarnation of the process."""

    def __init__(
        self,
        knobs: Knobs,
        chance: SeededRandomness,
        injector: Injector,
        met: Sometimes,
        *,
        incarnation: int,
        name: str = "",
        after: Callable[[float, Callable[[], None]], None],
        operate: Callable[[Invocation], Raw],
        started: Callable[[Invocation], None],
        ran: Callable[[Ran], None],
        deliver: Callable[[ActivityResult], None],
        slots: int = 0,
    ) -> None:
        self._knobs = knobs
        self._chance = chance
        self._injector = injector
        self._met = met
        self._process = (name, incarnation) if name else incarnation
        self._after = after
        self._operate = operate
        self._started = started
        self._ran = ran
        self._deliver = deliver
        self._slots = slots
        self._in_flight: dict[Key, Invocation] = {}
        self._stopped: set[Key] = set()
        self.is_alive = True

    def start(self, invocations: Iterable[Invocation], handover: object = None) -> None:
        for invocation in invocations:
            if self._injector.crashes("release"):
                self._met("a crash between commit and release")
                raise SimulatedCrash
            key = (invocation.execution_id, invocation.task_id)
            if key not in self._in_flight:
                self._in_flight[key] = invocation
                self._stopped.discard(key)
                if invocation.name.startswith("@"):
                    self._take_off(invocation)
                    continue
                self._started(invocation)
                self._schedule(invocation)

    def cancel(self, calls: Iterable[Key], executions: Collection[str] = ()) -> list[Attempt]:
        """Some bodies look and stop before they have done anything, others go on: their results come too late."""
        if self._injector.crashes("release"):
            self._met("a crash between the commit of a cancellation and the cancelling")
            raise SimulatedCrash
        for key in {*calls, *(key for key in self._in_flight if key[0] in executions)}:
            self._in_flight.pop(key, None)
            if self._chance.draw("heeds", *key) < 0.5:
                self._stopped.add(key)
        return []

    def forget(self, calls: Iterable[Key]) -> list[Invocation | None]:
        return [self._in_flight.pop(key, None) for key in calls]

    def is_running(self, key: Key) -> bool:
        """Whether this was started here, and its result has not been taken up."""
        return self.is_alive and key in self._in_flight

    def open_invocations(self) -> list[Invocation]:
        return list(self._in_flight.values())

    def free_slots(self) -> tuple[Sequence[str], int]:
        free = max(0, self._slots - len(self._in_flight))
        return (ACTIVITIES if free else ()), free

    def expected_wait(self, name: str, more: int) -> float:
        """0 with a free slot, None otherwise."""
        return 0.0 if len(self._in_flight) + more < self._slots else 3_600.0

    @property
    def is_busy(self) -> bool:
        return bool(self._in_flight)

    @property
    def is_healthy(self) -> bool:
        return True

    def _schedule(self, invocation: Invocation) -> None:
        asked = msgspec.json.decode(invocation.input)
        of = (invocation.instance_id, asked["key"], invocation.attempt, self._process)
        result = _result(invocation, asked)
        self._after(self._lasts("body", of), lambda: self._run(invocation, result, of))

    def _take_off(self, invocation: Invocation) -> None:
        """An operation of an entity that runs outside the loop."""
        of = (invocation.instance_id, invocation.execution_id, invocation.task_id, self._process)
        result = ActivityResult(
            instance_id=invocation.instance_id,
            execution_id=invocation.execution_id,
            task_id=invocation.task_id,
            result=self._operate(invocation),
        )
        self._after(self._lasts("flight", of), lambda: self._arrive(result, of, again=False))

    def _run(self, invocation: Invocation, result: ActivityResult | None, of: tuple[object, ...]) -> None:
        if not self.is_alive:
            return
        if (invocation.execution_id, invocation.task_id) in self._stopped:
            self._met("a body that stopped because its call was cancelled")
            return
        if result is None:
            return  # the host has lost it
        self._ran(
            Ran(
                invocation.instance_id,
                invocation.execution_id,
                invocation.task_id,
                invocation.attempt,
                invocation.idempotency_key,
                None if result.failure is not None else bytes(result.result),
            )
        )
        self._after(self._lasts("way", of), lambda: self._arrive(result, of, again=False))

    def _arrive(self, result: ActivityResult, of: tuple[object, ...], *, again: bool) -> None:
        if not self.is_alive:
            return
        self._deliver(result)
        if not again and self._chance.draw("twice", *of) < self._knobs.duplicated:
            self._after(self._lasts("again", of), lambda: self._arrive(result, of, again=True))

    def _lasts(self, what: str, of: tuple[object, ...]) -> float:
        """Seconds: mostly milliseconds, and in some seeds now and then very long."""
        slow = self._chance.draw(what, "slow", *of) < self._knobs.slow
        return self._chance.draw(what, *of) ** 3 * (30.0 if slow else 0.5)


def _result(invocation: Invocation, asked: dict[str, object]) -> ActivityResult | None:
    if asked.get("final") == "unrecorded":
        return completed(invocation, object())
    value, failure = answer_of(asked, invocation.attempt)
    if failure and asked.get("ends") and not asked["fatal"] and not asked.get("final"):
        return ended_abruptly(invocation, str(asked["ends"]))
    return ActivityResult(
        instance_id=invocation.instance_id,
        execution_id=invocation.execution_id,
        task_id=invocation.task_id,
        result=ABSENT if failure else Raw(msgspec.json.encode(value)),
        failure=Failure(failure, "as it was told to") if failure else None,
    )
