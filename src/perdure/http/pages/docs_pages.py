"""The description of the API: /openapi.json for programs and /docs for people, both from the same rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from perdure.http.api.instance_urls import MANAGEMENT
from perdure.http.api.openapi import document_of
from perdure.http.contract import Answer, Contract
from perdure.http.pages.rendering import as_page, base_of, draw
from perdure.http.responses import json_response
from perdure.http.routing import client_of
from perdure.http.table import Endpoint
from perdure.version import __version__

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_METHODS = ("get", "post", "put", "patch", "delete", "head", "options")


async def openapi(request: Request) -> Response:
    """GET openapi.json: return this description as OpenAPI 3.1."""
    document = {**_document(request), "servers": [{"url": base_of(request) or "/"}]}
    return json_response(document, headers={"Content-Disposition": 'inline; filename="openapi.json"'})


async def docs_page(request: Request) -> Response:
    """GET docs: show this description as a page."""
    document = _document(request)
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, place in document["paths"].items():
        for method in _METHODS:
            if method in place:
                shown = {**place[method], "path": path, "method": method.upper()}
                shown["answers"] = [
                    (status, _resolved(document, answer)) for status, answer in shown["responses"].items()
                ]
                groups.setdefault(shown["tags"][0], []).append(shown)
    return draw(
        request,
        "docs.html",
        document=document,
        groups=groups,
        type_of=_type_of,
        linked=_linked,
        words=_words,
        split=_split,
        shown=_schemas(document),
    )


def _document(request: Request) -> dict[str, Any]:
    state = request.app.state
    if not hasattr(state, "description"):
        state.description = document_of(request.app.routes, client_of(request).task_hub, __version__)
    found: dict[str, Any] = state.description
    return found


def _resolved(document: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in answer:
        return answer
    found: dict[str, Any] = document["components"]["responses"][answer["$ref"].rsplit("/", 1)[1]]
    return found


def _type_of(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    match schema:
        case {"$ref": str(ref)}:
            return ref.rsplit("/", 1)[1]
        case {"type": "array", "items": dict(items)}:
            return f"list of {_type_of(items)}"
        case {"enum": list(words)}:
            return ", ".join(map(str, words))
        case {"const": word}:
            return str(word)
        case {"anyOf": list(options)} | {"oneOf": list(options)}:
            return " or ".join(_type_of(option) for option in options)
        case {"type": "object", "additionalProperties": dict(values)}:
            return f"object of {_type_of(values)}"
        case {"type": "string", "format": "date-time"}:
            return "time"
        case {"type": list(kinds)}:
            return " or ".join(map(str, kinds))
        case {"type": str(kind)}:
            return kind
    return "anything"


def _linked(schema: dict[str, Any]) -> list[tuple[str, bool]]:
    """The words of `_type_of`, each with whether it is the name of a type on the page."""
    named = {ref.rsplit("/", 1)[1] for ref in _references(schema)}
    return [(word, word in named) for word in re.split(r"(\W+)", _type_of(schema)) if word]


def _references(schema: Any) -> Iterator[str]:
    match schema:
        case {"$ref": str(ref)}:
            yield ref
        case dict():
            for value in schema.values():
                yield from _references(value)
        case list():
            for value in schema:
                yield from _references(value)


def _words(text: str) -> list[tuple[str, bool]]:
    """A sentence in parts, each with whether it was between backticks."""
    return [(part, bool(number % 2)) for number, part in enumerate(text.split("`")) if part]


def _split(path: str) -> tuple[str, str]:
    """A path, split into the common prefix of the management API and the rest."""
    return (MANAGEMENT, path.removeprefix(MANAGEMENT)) if path.startswith(MANAGEMENT) else ("", path)


def _schemas(document: dict[str, Any]) -> dict[str, Any]:
    schemas: dict[str, Any] = document["components"]["schemas"]
    return {name: schema for name, schema in sorted(schemas.items()) if schema.get("properties")}


_CONTRACT = Contract(answers=(Answer(200, dict[str, Any], "The description."),))
ENDPOINTS = (
    Endpoint("/openapi.json", ("GET",), openapi, "read", contract=_CONTRACT),
    Endpoint("/docs", ("GET",), as_page(docs_page), "read", is_page=True),
)

__all__ = ["ENDPOINTS"]
