"""The parameters of management requests, read and checked. What cannot be read is refused by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from perdure.engine.bulk import Which
from perdure.errors import PayloadError
from perdure.http.instants import unstamp
from perdure.model.instances import RuntimeStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.datastructures import QueryParams
    from starlette.requests import Request

CONTINUATION = "x-ms-continuation-token"
T = TypeVar("T")


def read(query: Mapping[str, str], name: str, reader: Callable[[str], T]) -> T | None:
    """A parameter, None when it is not given. Raises PayloadError naming it when it cannot be read."""
    text = query.get(name)
    if not text:
        return None
    try:
        return reader(text)
    except (ValueError, OverflowError) as error:
        raise PayloadError(f"the parameter {name}={text[:60]!r} cannot be read: {error}") from error


def flag(query: Mapping[str, str], name: str, default: bool) -> bool:
    found = read(query, name, lambda text: _FLAGS[text.lower()] if text.lower() in _FLAGS else _no_flag())
    return default if found is None else found


_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def _no_flag() -> bool:
    raise ValueError("it is true or false")


def top(query: Mapping[str, str]) -> int:
    found = read(query, "top", int)
    return 100 if found is None else found


def seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise ValueError("it is a number of seconds")
    return value


def statuses(text: str) -> list[RuntimeStatus]:
    known = {status.value.casefold(): status for status in RuntimeStatus}
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name.casefold() not in known]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(RuntimeStatus)}")
    return [known[name.casefold()] for name in names]


def on_existing(text: str) -> Any:
    if text not in ("replace_finished", "return_existing", "reject"):
        raise ValueError("it is replace_finished, return_existing or reject")
    return text


def tags(pairs: list[str]) -> dict[str, str] | None:
    for pair in pairs:
        if "=" not in pair:
            raise PayloadError(f"a tag is given as tag=name=value, not {pair[:60]!r}")
    return dict(pair.split("=", 1) for pair in pairs) or None


def reason(request: Request) -> str:
    return request.query_params.get("reason", "")[:4_000]


def operation_id(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= 200 and key.isprintable()):
        raise PayloadError("an Idempotency-Key is 1 to 200 printable characters")
    return key


def which(query: QueryParams) -> Which:
    """The filters of a list or of a bulk operation."""
    return Which(
        status=read(query, "runtimeStatus", statuses) or (),
        name=query.get("name"),
        prefix=query.get("instanceIdPrefix"),
        tags=tags(query.getlist("tag")),
        created_from=read(query, "createdTimeFrom", unstamp),
        created_to=read(query, "createdTimeTo", unstamp),
        waiting_for=query.get("waitingFor"),
    )
