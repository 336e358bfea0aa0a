"""HTTP triggers as routes of the server: Azure's route templates, requests and answers."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from perdure.blueprint import LEVELS, METHODS
from perdure.engine.client.client import Client
from perdure.engine.functions.registry import Route
from perdure.hosts.azure_functions import sdk
from perdure.hosts.azure_functions.in_process import HubDoor
from perdure.hosts.azure_functions.invoking import CLIENTS, RETURN, Callee, typed
from perdure.hosts.azure_functions.outputs import send_outputs
from perdure.http.api import azure_requests

if TYPE_CHECKING:
    from perdure.hosts.azure_functions.indexing import AppFunction

_PART: Final = re.compile(
    r"\{(?P<rest>\*{0,2})(?P<name>\w+)(?P<checks>(?::[^{}?]+(?:\{[^}]*\})?[^{}?]*)*)(?P<optional>\??)\}"
)
_CHECK: Final = re.compile(r"(\w+)(?:\((.*)\))?$")


def _whole(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text):
        raise ValueError(text)
    return int(text)


def _bounds(argument: str) -> tuple[int, int]:
    low, _, high = argument.partition(",")
    return int(low), int(high or low)


def _is_within(number: int, bounds: tuple[int, int]) -> bool:
    return bounds[0] <= number <= bounds[1]


CHECKS: Final[Mapping[str, Callable[[str, str], Any]]] = {
    "int": lambda text, _: _is_within(_whole(text), (-(2**31), 2**31 - 1)),
    "long": lambda text, _: _is_within(_whole(text), (-(2**63), 2**63 - 1)),
    "bool": lambda text, _: text.casefold() in ("true", "false"),
    "float": lambda text, _: float(text) is not None,
    "double": lambda text, _: float(text) is not None,
    "decimal": lambda text, _: float(text) is not None,
    "datetime": lambda text, _: datetime.fromisoformat(text) is not None,
    "guid": lambda text, _: uuid.UUID(text) is not None,
    "alpha": lambda text, _: re.fullmatch("[A-Za-z]*", text) is not None,
    "length": lambda text, argument: _is_within(len(text), _bounds(argument)),
    "minlength": lambda text, argument: len(text) >= int(argument),
    "maxlength": lambda text, argument: len(text) <= int(argument),
    "min": lambda text, argument: _whole(text) >= int(argument),
    "max": lambda text, argument: _whole(text) <= int(argument),
    "range": lambda text, argument: _is_within(_whole(text), _bounds(argument)),
    "regex": lambda text, argument: re.search(argument, text) is not None,
    "required": lambda text, _: bool(text),
}
"""The constraints of route templates; a value that raises ValueError does not fit."""


@dataclass(frozen=True)
class Template:
    """A route template: the paths of ours that it stands for, and what each value has to fit."""

    paths: tuple[str, ...]
    checks: Mapping[str, tuple[tuple[str, str], ...]]

    def constraints(self, path: str) -> str:
        """What the values in one of its paths have to fit, as text."""
        return repr(
            [(name, checks) for name, checks in self.checks.items() if checks and f"{{{name}" in path]
        )

    def fits(self, values: Mapping[str, Any]) -> bool:
        """Whether the values of a path fit the constraints."""
        return all(
            _fits(str(values[name]), kind, argument)
            for name, checks in self.checks.items()
            if name in values
            for kind, argument in checks
        )


def _fits(text: str, kind: str, argument: str) -> bool:
    check = CHECKS.get(kind)
    if check is None:
        return True
    try:
        return bool(check(text, argument))
    except ValueError:
        return False


def template_of(route: str) -> Template:
    """Read a route template. Raises ValueError for one that is not Azure's."""
    checks: dict[str, tuple[tuple[str, str], ...]] = {}
    paths = [""]
    for segment in route.strip("/").split("/") if route.strip("/") else []:
        optional = False

        def put(found: re.Match[str]) -> str:
            nonlocal optional
            name = found["name"]
            listed = [one for one in found["checks"].split(":") if one]
            read = [_CHECK.match(one) for one in listed]
            checks[name] = tuple((one[1].casefold(), one[2] or "") for one in read if one)
            optional = optional or bool(found["optional"] or found["rest"])
            return f"{{{name}:path}}" if found["rest"] else f"{{{name}}}"

        put_in = _PART.sub(put, segment)
        if re.search(r"[{}]", re.sub(r"\{\w+(:path)?\}", "", put_in)):
            raise ValueError(f"the route {route!r} cannot be read at {segment!r}")
        longest = paths[-1]
        paths = [longest, f"{longest}/{put_in}"] if optional else [f"{longest}/{put_in}"]
        if optional and segment != route.strip("/").split("/")[-1]:
            raise ValueError(f"the route {route!r}: only its last part may be optional")
    return Template(tuple(path or "/" for path in paths), checks)


def routes_of(described: AppFunction, callee: Callee) -> Iterator[Route]:
    """The routes of a function with an HTTP trigger. Raises ValueError for a template that cannot be read."""
    trigger = described.trigger
    template = template_of(str(trigger.get("route", described.name)))
    methods = tuple(str(one).upper() for one in trigger.get("methods", ())) or tuple(sorted(METHODS))
    level = str(trigger.get("authLevel", "function")).casefold()
    if level not in LEVELS:
        raise ValueError(f"the authLevel {level!r} is none of {', '.join(LEVELS)}")
    handler = _handler(callee)
    has_client = any(one.kind in CLIENTS for one in described.others)
    for path in template.paths:
        yield Route(
            described.name,
            handler,
            path=path,
            methods=methods,
            auth=level,
            has_client=has_client,
            folded=True,
            constraints=template.constraints(path),
            fits=template.fits if any(template.checks.values()) else None,
            is_shortened=path != template.paths[-1],
        )


def without_covered(route: Route, taken: Iterable[Route]) -> Route | None:
    """A route without the methods for which another function has the same path; None if nothing is left.

    The path without an optional part can be the whole path of another function, which precedes it.
    """
    others = [one for one in taken if _shape(one.path) == _shape(route.path)]
    covered = {method for one in others for method in one.methods if one.name != route.name}
    left = tuple(one for one in route.methods if one not in covered)
    return replace(route, methods=left) if left else None


def precedence(route: Route) -> tuple[int, ...]:
    """The place of a route among others: text before values, values that are checked before others, {*rest} last."""
    return tuple(_rank(part, route) for part in route.path.strip("/").split("/"))


def _rank(part: str, route: Route) -> int:
    if ":path}" in part:
        return 4
    named = re.search(r"\{(\w+)", part)
    if named is None:
        return 1
    return 2 if f"'{named[1]}'" in route.constraints else 3


def _shape(path: str) -> str:
    return re.sub(r"\{\w+", "{", path.casefold()).rstrip("/")


def _handler(callee: Callee) -> Callable[..., Any]:
    said = callee.folder.extension("http").get("customHeaders") or {}
    custom = {str(name): str(value) for name, value in said.items()} if isinstance(said, Mapping) else {}

    async def handle(perdure_request: Request, perdure_client: Client, perdure_door: HubDoor) -> Response:
        body = await perdure_request.body()
        arguments, outputs = callee.arguments(
            azure_requests.request_of(perdure_request, body),
            str(uuid.uuid4()),
            door=perdure_door,
            client=perdure_client,
        )
        result = await callee.call(arguments)
        await send_outputs(callee, outputs, result, perdure_client)
        named = [one.name for one in callee.outputs if one.kind == "http" and one.name != RETURN]
        answer = answer_of(outputs[named[0]].get() if named and result is None else result)
        for name, value in custom.items():
            answer.headers.setdefault(name, value)
        return answer

    told = {
        "perdure_request": Request,
        "perdure_client": Client,
        "perdure_door": HubDoor,
        "return": Response,
    }
    return typed(handle, callee, told)


def answer_of(result: Any) -> Response:
    """What a function returned, as it is sent. Raises TypeError for what Azure's host does not send either."""
    match result:
        case None:
            return Response(status_code=204)
        case str():
            return PlainTextResponse(result)
        case bytes() | bytearray():
            return Response(bytes(result), media_type="application/octet-stream")
        case sdk.func.HttpResponse():
            return azure_requests.sent(result)
    raise TypeError(f"an HTTP function returns a func.HttpResponse or text, not {type(result).__name__}")


__all__ = [
    "CHECKS",
    "Template",
    "answer_of",
    "precedence",
    "routes_of",
    "template_of",
    "without_covered",
]
