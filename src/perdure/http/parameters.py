"""The parameters of requests. Each is declared once, and the declaration reads, checks and describes it.

A row of the endpoint table names the parameters that it takes. They are read and checked before the handler runs. The
handler asks a parameter for its value, and the API's description is made from the same rows. So every described
parameter is checked, and a handler cannot use a parameter that its row does not name. A malformed parameter is
rejected with an error that names it. Unknown parameters are ignored, as in Azure's host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

from perdure.engine.client.bulk import Which
from perdure.engine.client.searching import ORDERS
from perdure.errors import PayloadError
from perdure.http.timestamps import unstamp
from perdure.model.instances import RuntimeStatus

if TYPE_CHECKING:
    from datetime import datetime

    from starlette.requests import Request

GIVEN: Final = "perdure.given"
"""The key in a request's scope for its checked parameters, by name."""
CONTINUATION: Final = "x-ms-continuation-token"
SEARCHED_FROM: Final = "x-searched-from"
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Schema = Mapping[str, Any]
Place = Literal["query", "header", "path"]


@dataclass(frozen=True, eq=False)
class Parameter(Generic[T_co]):
    """One parameter: its name, description, JSON Schema, reader and default.

    A parameter with `many` can be repeated, and `reader` gets the list. `reader` raises ValueError for a malformed
    value.
    """

    name: str
    says: str
    schema: Schema
    reader: Callable[[Any], T_co]
    default: T_co
    place: Place = "query"
    many: bool = False
    needed: bool = False
    example: Any = field(default=None)

    def of(self, request: Request) -> T_co:
        """The value in a request whose row takes this parameter."""
        value: T_co = request.scope[GIVEN][self.name]
        return value

    def read(self, request: Request) -> T_co:
        """Read and check the parameter. Raises PayloadError with its name."""
        found = self._found(request)
        if not found:
            if self.needed:
                raise PayloadError(f"the parameter {self.name} is missing: {self.says}")
            return self.default
        try:
            return self.reader(found if self.many else found[-1])
        except (ValueError, OverflowError) as error:
            shown = str(found[-1])[:60]
            raise PayloadError(f"the parameter {self.name}={shown!r} is invalid: {error}") from error

    def _found(self, request: Request) -> list[Any]:
        match self.place:
            case "path":
                return [request.path_params[self.name]]
            case "header":
                return [text for text in request.headers.getlist(self.name) if text]
            case "query":
                return [text for text in request.query_params.getlist(self.name) if text]


def reader_of(taken: Sequence[Parameter[Any]]) -> Callable[[Request], None]:
    """A function that reads all parameters of a row and stores the values in the request. It raises PayloadError."""
    # Most requests have no query. The parameters that they can have are known beforehand.
    defaults = {one.name: one.default for one in taken}
    without_query = [one for one in taken if one.needed or one.place != "query"]

    def check(request: Request) -> None:
        asks = bool(request.scope["query_string"])
        found = request.scope[GIVEN] = defaults.copy()
        for one in taken if asks else without_query:
            found[one.name] = one.read(request)

    return check


# ------------------------------------------------------------------------------------ kinds of parameters


def flag(name: str, says: str, default: bool = False) -> Parameter[bool]:
    return Parameter(name, says, {"type": "boolean", "default": default}, _flag, default)


def text(name: str, says: str, limit: int = 4_000, *, lines: bool = False) -> Parameter[str | None]:
    """Text for people, or a name. It must be printable, because logs, pages and terminals show it."""

    def read(given: str) -> str:
        shown = given.replace("\r\n", "\n")
        if not (shown.replace("\n", " ").replace("\t", " ") if lines else shown).isprintable():
            raise ValueError("it contains characters that are not printable")
        return shown[:limit]

    return Parameter(name, says, {"type": "string"}, read, None)


def when(name: str, says: str) -> Parameter[datetime | None]:
    return Parameter(name, says, {"type": "string", "format": "date-time"}, unstamp, None)


def seconds(name: str, says: str) -> Parameter[float | None]:
    return Parameter(name, says, {"type": "number", "minimum": 0}, _seconds, None)


def choice(name: str, says: str, *words: str) -> Parameter[Any]:
    def read(given: str) -> str:
        if given not in words:
            raise ValueError(f"it must be {', '.join(words[:-1])} or {words[-1]}")
        return given

    return Parameter(name, says, {"type": "string", "enum": list(words)}, read, None)


def whole(name: str, says: str, least: int, most: int, default: int | None = None) -> Parameter[Any]:
    def read(given: str) -> int:
        value = int(given) if given.isascii() and given.isdecimal() else -1
        if not least <= value <= most:
            raise ValueError(f"it must be a whole number from {least} to {most}")
        return value

    schema = {"type": "integer", "minimum": least, "maximum": most}
    return Parameter(name, says, schema if default is None else {**schema, "default": default}, read, default)


def _flag(given: str) -> bool:
    if given.lower() not in _FLAGS:
        raise ValueError("it must be true or false")
    return _FLAGS[given.lower()]


_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def _seconds(given: str) -> float:
    # Python's float accepts more than JSON.
    value = float(given) if given.isascii() and "_" not in given else -1.0
    if not 0 <= value < 1e9:
        raise ValueError("it must be a number of seconds")
    return value


def _statuses(given: list[str]) -> list[RuntimeStatus]:
    known = {status.value.casefold(): status for status in RuntimeStatus}
    names = [name.strip() for text in given for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name.casefold() not in known]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not a status. The statuses are {', '.join(RuntimeStatus)}")
    return [known[name.casefold()] for name in names]


def _tags(pairs: list[str]) -> dict[str, str] | None:
    for pair in pairs:
        if "=" not in pair or not pair.isprintable():
            raise ValueError(f"{pair[:60]!r} is not a tag. Write tag=name=value, with printable characters")
    return dict(pair.split("=", 1) for pair in pairs) or None


_SEEN: Final = "!-~\u00a1-\u00ac\u00ae-\u00ff"  # the visible characters that a header can contain


def _operation_id(key: str) -> str:
    if not (0 < len(key) <= 200 and key.isprintable()):
        raise ValueError("an Idempotency-Key must have 1 to 200 printable characters")
    return key


# ----------------------------------------------------------------------------- parameters of several rows

STATUSES: Parameter[Any] = Parameter(
    "runtimeStatus",
    "a status, or several separated by commas. Can be repeated",
    {"type": "array", "items": {"type": "string", "enum": [status.value for status in RuntimeStatus]}},
    _statuses,
    (),
    many=True,
)
NAME = text("name", "the orchestrator's name")
PREFIX = text("instanceIdPrefix", "the prefix of the instance id")
TAGS: Parameter[dict[str, str] | None] = Parameter(
    "tag",
    "a tag, as name=value. Can be repeated",
    {"type": "array", "items": {"type": "string", "pattern": "="}},
    _tags,
    None,
    many=True,
    example=["colour=green"],
)
CREATED_FROM = when("createdTimeFrom", "only instances created at this time or later")
CREATED_TO = when("createdTimeTo", "only instances created at this time or earlier")
WAITING_FOR = text("waitingFor", "the name of an event; only instances that wait for it")
ENDED_FROM = when("endedFrom", "only instances that ended at this time or later")
ENDED_TO = when("endedTo", "only instances that ended at this time or earlier")
FAILURE = text("failure", "a text in the error of a failed instance, in any case", 400)
PARENT = text("parent", "the id of the instance that called it")
BUILT_IN: Parameter[bool] = flag(
    "builtIn", "whether perdure's own orchestrations, of schedules and queues, are listed", True
)
PARKED = flag("parked", "only instances that the engine has parked")
FILTERS: Final[tuple[Parameter[Any], ...]] = (
    STATUSES,
    NAME,
    PREFIX,
    TAGS,
    CREATED_FROM,
    CREATED_TO,
    ENDED_FROM,
    ENDED_TO,
    WAITING_FOR,
    PARKED,
    FAILURE,
    PARENT,
    BUILT_IN,
)

ORDER: Parameter[Any] = replace(
    choice(
        "order",
        "newest or oldest by the start, ended: those that ended last, duration: the longest of the last 1,000",
        *ORDERS,
    ),
    default="newest",
)
TOP = whole("top", "the most items on one page", 1, 1_000, 100)
CONTINUED = Parameter(
    CONTINUATION,
    "the value of this header in the previous response; continues after that page",
    {"type": "string", "pattern": "^[0-9]{1,19}$"},
    str,
    None,
    place="header",
)
REASON: Parameter[str] = replace(  # type: ignore[assignment]
    text("reason", "a reason, stored in the instance's history", lines=True), default=""
)
OPERATION_ID: Parameter[str | None] = Parameter(
    "Idempotency-Key",
    "a key for the request. A repetition within 24 hours has no effect and gets the first response",
    {"type": "string", "minLength": 1, "maxLength": 200, "pattern": f"^[{_SEEN}]([ {_SEEN}]*[{_SEEN}])?$"},
    _operation_id,
    None,
    place="header",
)
TASK_HUB = text("taskHub", "the expected hub; the request is rejected if the server serves another one")


def which(request: Request) -> Which:
    """The filters of a list or of a bulk operation."""
    return Which(
        status=STATUSES.of(request),
        name=NAME.of(request),
        prefix=PREFIX.of(request),
        tags=TAGS.of(request),
        created_from=CREATED_FROM.of(request),
        created_to=CREATED_TO.of(request),
        ended_from=ENDED_FROM.of(request),
        ended_to=ENDED_TO.of(request),
        waiting_for=WAITING_FOR.of(request),
        parked=PARKED.of(request),
        failure=FAILURE.of(request),
        parent=PARENT.of(request),
        built_in=BUILT_IN.of(request),
    )
