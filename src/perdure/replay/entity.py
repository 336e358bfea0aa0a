"""One operation of one entity: a pure function of its state, the operation and the time.

`operate` runs the user's code once and returns the new state as JSON, the answer, and the sent messages. If the
code fails, the state stays the same and its messages are dropped; only the failure remains. State is written to
JSON after each operation, so an undo only discards an object. There are two styles. A function gets an
`EntityContext` and reads `operation_name`; a class has a public method for each operation, and its object is
the state. This module knows nothing of queues, locks or stores.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from datetime import datetime
from types import UnionType
from typing import Any, Protocol, TypeVar, overload

import msgspec
from msgspec import Raw

from perdure.errors import EngineSignal, MisfitError, OrchestratorError, PayloadError
from perdure.failure import Failure
from perdure.model import payload
from perdure.model.durations import instant, moment
from perdure.model.entities import DELETE, Caller, EntityId, checked_operation, entity_id_of
from perdure.model.events import ABSENT
from perdure.model.failures import failure_of
from perdure.model.instances import check_instance_id
from perdure.model.messages import EntityOperation, Message, Start
from perdure.replay.determinism import Mismatch, misfit
from perdure.replay.inputs import NO_INPUT, Input, input_body

T = TypeVar("T")
NULL = Raw(b"null")
_UNSET: Any = object()


@dataclass(slots=True)
class Surroundings:
    """The environment of an operation: the time, a source of ids, the registered functions.

    `orchestrator_name` and `check_entity` raise FunctionNotFound.
    """

    now: int
    new_id: Callable[[], str]
    orchestrator_name: Callable[[Any], str]
    check_entity: Callable[[str], None]


@dataclass(slots=True)
class Operated:
    """The outcome of one operation. `state` is ABSENT when the entity does not exist afterwards.

    `live` is the object of a class-style entity, to avoid decoding the state again; None after a failure.
    """

    state: Raw
    result: Raw = field(default_factory=lambda: NULL)
    failure: Failure | None = None
    messages: list[Message] = field(default_factory=list)
    live: Any = None


class EntityContext:
    """The only access of an entity to the outside world. Azure's `DurableEntityContext`."""

    __slots__ = (
        "_deleted",
        "_input",
        "_messages",
        "_result",
        "_state",
        "_unfit",
        "_world",
        "entity_id",
        "key",
        "operation",
    )

    def __init__(
        self, entity_id: EntityId, state: Raw, operation: str, input_: Raw, world: Surroundings
    ) -> None:
        self.entity_id = entity_id
        self.operation = operation
        self.key = ""
        self._state = state
        self._input = input_
        self._world = world
        self._result: Any = _UNSET
        self._deleted = False
        self._messages: list[Message] = []
        self._unfit: Mismatch | None = None  # also if a bare `except:` swallowed it

    # ------------------------------------------------------------------------------------------ who and what

    @property
    def entity_name(self) -> str:
        """The name part of its id, in lower case."""
        return self.entity_id.name

    @property
    def entity_key(self) -> str:
        """The key part of its id."""
        return self.entity_id.key

    @property
    def operation_name(self) -> str:
        """The name of the current operation."""
        return self.operation

    @property
    def is_newly_constructed(self) -> bool:
        """Whether the entity did not exist before this operation."""
        return not bytes(self._state)

    @property
    def current_utc_datetime(self) -> datetime:
        """The hub's time, aware, in UTC."""
        return moment(self._world.now)

    @property
    def idempotency_key(self) -> str:
        """A key for calls to other systems: the same in every run of this operation (`offload=True` only)."""
        return self.key

    @overload
    def get_input(self, expected_type: type[T]) -> T: ...
    @overload
    def get_input(self, expected_type: UnionType | None = None) -> Any: ...
    def get_input(self, expected_type: Any = None) -> Any:
        """The operation's input, typed if a type is given. Raises PayloadError if it does not fit."""
        body = self._input if bytes(self._input) else NULL
        return payload.decode(body, Any if expected_type is None else expected_type)

    # ------------------------------------------------------------------------------------------------ state

    @overload
    def get_state(self, initializer: Callable[[], T], expected_type: type[T] | None = None) -> T: ...
    @overload
    def get_state(self, initializer: T, expected_type: type[T]) -> T: ...
    @overload
    def get_state(self, initializer: None = None, *, expected_type: type[T]) -> T | None: ...
    @overload
    def get_state(self, initializer: Any = None, expected_type: UnionType | None = None) -> Any: ...
    def get_state(self, initializer: Any = None, expected_type: Any = None) -> Any:
        """The state, typed if a type is given; for a new entity, the `initializer` (a function or a value).

        A state that no longer fits the type parks the entity, with its state and its waiting operations.
        """
        if not bytes(self._state):
            return initializer() if callable(initializer) else initializer
        wanted = Any if expected_type is None else expected_type
        try:
            return payload.decode(self._state, wanted)
        except PayloadError as error:
            self._unfit = self._misfit(wanted, error)
            raise self._unfit from None

    def _misfit(self, wanted: Any, error: PayloadError) -> Mismatch:
        return misfit(f"the state of the entity {self.entity_id}", wanted, error)

    def set_state(self, state: Any) -> None:
        """Replace the state. Raises PayloadError for a value that strict JSON cannot represent."""
        self._state = Raw(payload.encode(state))
        self._deleted = False

    def set_result(self, result: Any) -> None:
        """Set the result for the caller. A function may return it instead."""
        self._result = result

    def destruct_on_exit(self) -> None:
        """Delete the entity when this operation is done. A later operation creates a new one."""
        self._deleted = True

    # --------------------------------------------------------------------------------------------- messages

    def signal_entity(
        self, entity: EntityId | str, operation: str, input_: Any = NO_INPUT, *, at: datetime | None = None
    ) -> None:
        """Signal another entity (or this one), if this operation succeeds. `at` delays the signal.

        Raises FunctionNotFound, InvalidInstanceId, PayloadError.
        """
        entity_id = entity_id_of(entity)
        self._world.check_entity(EntityId.parse(entity_id).name)
        self._messages.append(
            EntityOperation(
                instance_id=entity_id,
                operation=checked_operation(operation),
                input=input_body(input_),
                caller=Caller(str(self.entity_id), "", -1),
                is_signal=True,
                visible_at=instant(at, "at") if at is not None else 0,
            )
        )

    def start_new(
        self, orchestrator: Any, instance_id: str | None = None, client_input: Any = NO_INPUT
    ) -> str:
        """Start an orchestration, if this operation succeeds; returns its instance id. The id of a running
        instance starts nothing. Raises FunctionNotFound, InvalidInstanceId, PayloadError.
        """
        chosen = self._world.new_id() if instance_id is None else check_instance_id(instance_id)
        self._messages.append(
            Start(
                instance_id=chosen,
                name=self._world.orchestrator_name(orchestrator),
                input=input_body(client_input),
                on_existing="return_existing" if instance_id is None else "replace_finished",
            )
        )
        return chosen


DurableEntityContext = EntityContext


class EntityCode(Protocol):
    """An entity, as the engine runs it."""

    @property
    def name(self) -> str: ...

    @property
    def offload(self) -> bool: ...

    def run(self, context: EntityContext, live: Any) -> tuple[Any, Any]:
        """Run the operation; returns the code's return value (perhaps awaitable) and the live object."""

    def finish(self, context: EntityContext, live: Any) -> None:
        """Store the state in the context, after a success."""

    def input_of(self, operation: str) -> Any:
        """The type of an operation's input; Any without an annotation."""

    def misfit_of(self, entity_id: str, state: Raw) -> MisfitError | None:
        """Why a state does not fit the code; None if it fits, or has no declared type."""


@dataclass(frozen=True)
class FunctionStyle:
    """A function of an `EntityContext`, optionally with a typed input."""

    name: str
    function: Callable[..., Any]
    parameter: Input | None = None
    offload: bool = False
    is_async: bool = False

    def run(self, context: EntityContext, live: Any) -> tuple[Any, Any]:
        if self.parameter is not None:
            return self.function(context, _input(context, self.parameter)), None
        return self.function(context), None

    def finish(self, context: EntityContext, live: Any) -> None:
        pass

    def input_of(self, operation: str) -> Any:
        return Any if self.parameter is None else self.parameter.type

    def misfit_of(self, entity_id: str, state: Raw) -> MisfitError | None:
        return None  # the function reads its state in its body


@dataclass(frozen=True)
class Method:
    """A public method and its arguments: the context (None) or the operation's input."""

    function: Callable[..., Any]
    parameters: tuple[Input | None, ...]
    is_async: bool = False


@dataclass(frozen=True)
class ClassStyle:
    """A class whose object is the state and whose public methods are the operations.

    `whole` is the class itself when JSON can encode its objects (dataclass, Struct, Pydantic model); otherwise
    the state is its attributes, typed by `attributes` if annotated.
    """

    name: str
    type: type
    methods: dict[str, Method]  # by folded name
    attributes: dict[str, Any]
    whole: bool
    offload: bool = False

    def run(self, context: EntityContext, live: Any) -> tuple[Any, Any]:
        method = self.methods.get(context.operation) or self.methods.get(context.operation.casefold())
        if method is None:
            if context.operation.casefold() == DELETE:
                context.destruct_on_exit()
                return None, live
            known = ", ".join(sorted(m.function.__name__ for m in self.methods.values())) or "none"
            raise OrchestratorError(
                f"the entity {self.name!r} has no operation {context.operation!r}; it has {known}"
            )
        subject = self._object(context) if live is None else live
        arguments = [
            context if parameter is None else _input(context, parameter) for parameter in method.parameters
        ]
        return method.function(subject, *arguments), subject

    def finish(self, context: EntityContext, live: Any) -> None:
        if live is not None and not context._deleted:
            context._state = Raw(payload.encode(live if self.whole else self._attributes_of(live)))

    def _attributes_of(self, live: Any) -> dict[str, Any]:
        state = {name: value for name, value in vars(live).items() if not name.startswith("_")}
        for name, kind in self.attributes.items():
            guard = payload.guard_of(kind)
            if guard is not None and name in state:
                guard((name,), state[name])
        return state

    def input_of(self, operation: str) -> Any:
        method = self.methods.get(operation.casefold())
        given = method.parameters if method is not None else ()
        return next((one.type for one in given if one is not None), Any)

    def misfit_of(self, entity_id: str, state: Raw) -> MisfitError | None:
        world = Surroundings(0, str, str, lambda name: None)
        try:
            self._object(EntityContext(EntityId.parse(entity_id), state, "", ABSENT, world))
        except Mismatch as found:
            return found.error if isinstance(found.error, MisfitError) else None
        return None

    def _object(self, context: EntityContext) -> Any:
        state = context._state
        if not bytes(state):
            return self.type()
        try:
            if self.whole:
                return payload.decode(state, self.type)
            subject = self.type()
            for name, value in _members.decode(state).items():
                setattr(subject, name, _attribute(name, value, self.attributes.get(name, Any)))
            return subject
        except PayloadError as error:
            raise context._misfit(self.type, error) from None


def operate(
    code: EntityCode,
    entity_id: EntityId,
    state: Raw,
    live: Any,
    operation: EntityOperation,
    world: Surroundings,
    inside: Context | None = None,
) -> Operated:
    """Run one operation. Raises only engine signals: every other error is the operation's failure.

    Changes of context variables end with the operation, which sees those of `inside` only.
    """
    context = EntityContext(entity_id, state, operation.operation, operation.input, world)
    return (inside or Context()).run(_operate, code, context, live)


def _operate(code: EntityCode, context: EntityContext, live: Any) -> Operated:
    state = context._state
    try:
        returned, subject = code.run(context, live)
        if _is_unfinished(returned):
            returned.close()
            raise OrchestratorError(
                f"the operation {context.operation!r} of {context.entity_id} returned a {type(returned).__name__}: "
                "register the entity with offload=True to do I/O, and do not yield"
            )
        return conclude(code, context, returned, subject)
    except EngineSignal:
        raise
    except BaseException as error:
        return unhandled(context, state, error)


def conclude(code: EntityCode, context: EntityContext, returned: Any, subject: Any) -> Operated:
    """The outcome of a success. Raises PayloadError for a state or result that JSON cannot represent."""
    if context._unfit is not None:
        raise context._unfit
    answer = returned if context._result is _UNSET else context._result
    try:
        code.finish(context, subject)
        result = NULL if answer is None else Raw(payload.encode(answer))
    except PayloadError as error:
        raise PayloadError(
            f"the operation {context.operation!r} of {context.entity_id} has finished, but its state or its "
            f"result cannot be recorded: {error}. The state is unchanged, and the operation is not retried "
            "(PDR-010)",
            error.pointer,
        ) from None
    if context._deleted:
        return Operated(ABSENT, result, None, context._messages)
    return Operated(context._state, result, None, context._messages, subject)


def _input(context: EntityContext, parameter: Input) -> Any:
    try:
        return parameter.read(context._input)
    except PayloadError as error:
        raise PayloadError(
            f"the input of the operation {context.operation!r} of {context.entity_id} does not fit its parameter "
            f"{parameter.name!r}: {error} (PDR-010)",
            error.pointer,
        ) from None


def unhandled(context: EntityContext, state: Raw, error: BaseException) -> Operated:
    """The outcome of an exception. Raises Mismatch if the state does not fit."""
    if context._unfit is not None:
        raise context._unfit from None
    return undone(state, error)


def _attribute(name: str, value: Raw, expected_type: Any) -> Any:
    try:
        return payload.decode(value, expected_type)
    except PayloadError as error:
        raise PayloadError(f"{error} (the attribute {name!r})", f"/{name}{error.pointer}") from None


def undone(state: Raw, error: BaseException) -> Operated:
    """The outcome of a failure, with the state unchanged."""
    return Operated(state, failure=failure_of(error, with_stack=not isinstance(error, PayloadError)))


def _is_unfinished(value: Any) -> bool:
    return hasattr(value, "close") and (hasattr(value, "cr_frame") or hasattr(value, "gi_frame"))


_members = msgspec.json.Decoder(dict[str, Raw])
