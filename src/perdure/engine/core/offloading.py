"""What travels when an operation of an entity runs outside the loop, and what comes back.

Out go the state and the operation; back come the new state, the answer and the messages. A flight is named by the
entity's incarnation and the number of operations applied so far: that names one operation for ever, gives it its
idempotency key, and lets a result count only where it belongs. What runs it is in `activities/offloaded.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from perdure.engine.core.entity_state import flight_of
from perdure.failure import Failure
from perdure.model.events import ABSENT
from perdure.model.messages import EntityOperation, Start
from perdure.replay.entity import ClassStyle, EntityCode, FunctionStyle, Operated
from perdure.replay.settle import Invocation

if TYPE_CHECKING:
    from perdure.engine.core.entity_state import LiveEntity
    from perdure.engine.core.instance import Instance
    from perdure.model.messages import ActivityResult


class Flight(msgspec.Struct, frozen=True, omit_defaults=True):
    """One operation on its way out, with the state it finds."""

    entity: str
    operation: str
    state: Raw = ABSENT
    input: Raw = ABSENT
    at: int = 0


class Landing(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of it."""

    state: Raw = ABSENT
    result: Raw = ABSENT
    failure: Failure | None = None
    messages: tuple[EntityOperation | Start, ...] = ()
    misfit: str = ""  # the state does not fit: nothing was done


encoded = msgspec.json.Encoder().encode
flights = msgspec.json.Decoder(Flight)
_landings = msgspec.json.Decoder(Landing)


def invocation_of(
    code: EntityCode, instance: Instance, entity_state: LiveEntity, message: EntityOperation, now: int
) -> Invocation:
    """The operation as something to be run after the commit."""
    execution_id, number = flight_of(instance, entity_state)
    flight = Flight(instance.instance_id, message.operation, entity_state.state, message.input, now)
    return Invocation(
        instance.instance_id,
        execution_id,
        number,
        number,
        1,
        runner_name(code.name, _is_async(code, message.operation)),
        Raw(encoded(flight)),
        0,
    )


def answer_of(result: ActivityResult, state: Raw) -> Operated:
    """What an operation that ran outside has come to. One that did not come to an end left the state alone."""
    if result.failure is not None:
        return Operated(state, failure=result.failure)
    landing = _landings.decode(result.result)
    if landing.failure is not None:
        return Operated(state, failure=landing.failure)
    return Operated(landing.state, landing.result, None, list(landing.messages))


def runner_name(entity: str, is_async: bool) -> str:
    return f"@{entity}@async" if is_async else f"@{entity}@"


def _is_async(code: EntityCode, operation: str) -> bool:
    if isinstance(code, ClassStyle):
        method = code.methods.get(operation.casefold())
        return method is not None and method.is_async
    return isinstance(code, FunctionStyle) and code.is_async


def misfit_of(result: ActivityResult) -> str:
    """Why an operation that ran outside could not read its entity's state; "" if it could."""
    return "" if result.failure is not None else _landings.decode(result.result).misfit


__all__ = [
    "Flight",
    "Landing",
    "answer_of",
    "encoded",
    "flights",
    "invocation_of",
    "misfit_of",
    "runner_name",
]
