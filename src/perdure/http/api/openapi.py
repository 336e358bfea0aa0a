"""The description of the API in OpenAPI 3.1, generated from the rows that are served.

This module contains nothing about single routes. Paths, parameters, bodies, responses and errors come from the table
whose rows check requests, and schemas from the types of bodies and responses. The pages are left out, and so is the
base path of Azure's own client, which repeats the management API.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from perdure.errors import (
    AccessRefused,
    EngineStopped,
    PerdureError,
    RateLimited,
    StoreFull,
    Unauthenticated,
)
from perdure.http.contract import Answer, Body, Contract, Problem
from perdure.http.parameters import Parameter
from perdure.http.problem import STATUS, title_of
from perdure.http.routing import GatedRoute
from perdure.http.table import Endpoint
from perdure.model import payload

Document = dict[str, Any]
_PROBLEM = "application/problem+json"
_WITH_BODY = (413, 415)
_NAMES: dict[str, str] = {
    "id": "the instance id",
    "name": "the name of the function, the entity or the schedule",
    "event": "the name of the event",
    "key": "the key of the entity, $ for an empty key",
    "key_id": "the id of the key",
    "queue": "the name of the queue",
}
_SCHEMES: Document = {
    "key": {"type": "apiKey", "in": "header", "name": "x-functions-key"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "code": {"type": "apiKey", "in": "query", "name": "code"},
    "link": {
        "type": "apiKey",
        "in": "query",
        "name": "sig",
        "description": "A signed link for one operation on one instance. It is in the URLs of a start's response.",
    },
}


def described(routes: Iterable[Any]) -> list[Endpoint]:
    """The rows of a router to describe: all except the pages and the routes for Azure's client."""
    rows = [route.row for route in routes if isinstance(route, GatedRoute)]
    return [row for row in rows if not row.is_page and "{credential}" not in row.path]


def document_of(routes: Iterable[Any], title: str, version: str) -> Document:
    """The description of all routes for programs."""
    rows, schemas = described(routes), Schemas()
    names = dict(zip(map(id, rows), _operation_ids(rows), strict=True))
    paths: Document = {}
    for row in rows:
        place = paths.setdefault(_template(row.path), {})
        for method in row.methods:
            suffix = "" if len(row.methods) == 1 else f"_{method.lower()}"
            place[method.lower()] = _operation(row, names[id(row)] + suffix, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": _INTRODUCTION},
        "paths": paths,
        "components": {
            "schemas": schemas.found,
            "responses": dict(_common_responses(schemas)),
            "securitySchemes": _SCHEMES,
        },
    }


_INTRODUCTION = (
    "The management API of Azure Durable Functions with additions, and below `/api` the client functions of this "
    "application. A 2xx response is sent after the commit, so what it confirms survives a power cut. Errors are "
    "problem documents (RFC 9457). Their `code` is stable, and their `number` is the number of the page in the "
    "documentation that explains the error."
)


@dataclass
class Schemas:
    """JSON Schemas of types. Each named schema is stored once and referenced."""

    found: Document = field(default_factory=dict)

    def of(self, kind: Any) -> Document:
        """The schema of a type, with its definitions moved to the shared components."""
        if kind is Any or kind is object:
            return {}
        schema = payload.schema_of(kind) or {}
        definitions = schema.pop("$defs", {})
        moved = {name: self._name(name, made) for name, made in definitions.items()}
        for name, made in definitions.items():
            self.found[moved[name]] = _relocated(made, moved)
        located: Document = _relocated(schema, moved)
        return located

    def _name(self, name: str, made: Document) -> str:
        """The name for a schema. A second type of the same name gets a number."""
        wanted, number = re.sub(r"[^\w.-]", "_", name), 1
        while wanted in self.found and self.found[wanted] != _relocated(made, {name: wanted}):
            number += 1
            wanted = f"{name}{number}"
        return wanted


def _relocated(schema: Any, moved: Mapping[str, str]) -> Any:
    match schema:
        case {"$ref": str(ref), **rest} if ref.startswith("#/$defs/"):
            name = ref.removeprefix("#/$defs/")
            return {**rest, "$ref": f"#/components/schemas/{moved.get(name, name)}"}
        case {"prefixItems": [first, *others], "items": False, **rest} if all(one == first for one in others):
            # A tuple of equal types becomes a list, because some tools do not support tuples.
            return {**_relocated(rest, moved), "items": _relocated(first, moved)}
        case dict():
            return {name: _relocated(value, moved) for name, value in schema.items()}
        case list():
            return [_relocated(value, moved) for value in schema]
    return schema


# ------------------------------------------------------------------------------------------ one operation


def _operation(row: Endpoint, operation_id: str, schemas: Schemas) -> Document:
    contract = row.contract
    told: Document = {
        "operationId": operation_id,
        "summary": _summary(row),
        "tags": [_tag(row)],
        "parameters": [*_path_parameters(row), *(_parameter(one) for one in _outside_path(contract))],
        "responses": _responses(row, schemas),
        "security": _security(row),
    }
    if contract.body is not None:
        told["requestBody"] = _body(contract.body, schemas)
    return {name: value for name, value in told.items() if value or name == "security"}


def _operation_ids(rows: list[Endpoint]) -> Iterator[str]:
    names = [f"api_{row.operation}" if row.function else row.operation for row in rows]
    seen = Counter[str]()
    for name, row in zip(names, rows, strict=True):
        seen[name] += 1
        in_path = re.findall(r"\{(\w+)", row.path)
        again = f"{name}_by_{in_path[-1]}" if in_path else f"{_tag(row)}_{name}"
        yield name if seen[name] == 1 else again


def _summary(row: Endpoint) -> str:
    text = (row.handler.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    told = re.sub(r"^(GET|POST|PUT|PATCH|DELETE) [^ :]+(?:\{[^}]*\}[^ :]*)*: ", "", text)
    words = " ".join(told.split()) or row.operation.replace("_", " ")
    return words[:1].upper() + words[1:]


def _tag(row: Endpoint) -> str:
    if row.function:
        return "client functions"
    found = re.search(r"/durabletask/(\w+)", row.path)
    return found[1] if found else "server"


def _template(path: str) -> str:
    return re.sub(r"\{(\w+):\w+\}", r"{\1}", path)


def _path_parameters(row: Endpoint) -> Iterator[Document]:
    declared = {one.name: one for one in row.contract.takes if one.place == "path"}
    for name in re.findall(r"\{(\w+)(?::\w+)?\}", row.path):
        one = declared.get(name)
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "schema": one.schema if one else {"type": "string", "minLength": 1},
            "description": one.says if one else _NAMES.get(name, name),
        }


def _outside_path(contract: Contract) -> Iterator[Parameter[Any]]:
    return (one for one in contract.takes if one.place != "path")


def _parameter(one: Parameter[Any]) -> Document:
    told: Document = {
        "name": one.name,
        "in": one.place,
        "required": one.needed,
        "description": one.says,
        "schema": dict(one.schema),
    }
    if one.schema.get("type") == "array":
        told |= {"style": "form", "explode": one.many}
    if one.example is not None:
        told["example"] = one.example
    return told


def _body(body: Body, schemas: Schemas) -> Document:
    content = {"application/json": {"schema": schemas.of(body.kind)}}
    return {"required": body.needed, "content": content, **({"description": body.says} if body.says else {})}


def _security(row: Endpoint) -> list[Document]:
    if row.scope == "open":
        return []
    needed = [f"function:{row.function}"] if row.function and row.scope == "function" else [row.scope]
    links: list[Document] = [{"link": []}] if row.link else []
    return [{"key": needed}, {"bearer": needed}, {"code": needed}, *links]


# ---------------------------------------------------------------------------------------------- responses


def _responses(row: Endpoint, schemas: Schemas) -> Document:
    told: Document = {}
    for answer in row.contract.answers:
        told[str(answer.status)] = _answer(answer, schemas)
    for status in sorted(_refusals(row)):
        told.setdefault(str(status), {"$ref": f"#/components/responses/{_response_name(status)}"})
        answered = told[str(status)]
        if "content" in answered:  # one status can be both a documented response and an error
            answered["content"][_PROBLEM] = {"schema": schemas.of(Problem)}
    if row.function:
        told.setdefault("default", {"description": "The response of the function."})
    return told


def _answer(answer: Answer, schemas: Schemas) -> Document:
    told: Document = {"description": answer.says or HTTPStatus(answer.status).phrase}
    if answer.kind is not None:
        told["content"] = {answer.media: {"schema": schemas.of(answer.kind)}}
    if answer.headers:
        told["headers"] = {
            name: {"description": says, "schema": {"type": "string"}} for name, says in answer.headers.items()
        }
    if answer.leads_to:
        told["links"] = {
            operation: {
                "operationId": operation,
                "parameters": {"id": f"$response.body#{pointer}"},
            }
            for operation, pointer in answer.leads_to
        }
    return told


_EVERYWHERE: tuple[type[PerdureError], ...] = (RateLimited, EngineStopped)
_GUARDED: tuple[type[PerdureError], ...] = (Unauthenticated, AccessRefused)


def _refusals(row: Endpoint) -> set[int]:
    kinds: set[type[BaseException]] = {*row.contract.errors, *_EVERYWHERE}
    if row.scope != "open":
        kinds |= {*_GUARDED}
    if row.link:
        kinds |= {*_GUARDED}
    found = {_status(kind) for kind in kinds} | {400}
    if row.contract.body is not None:
        found |= {*_WITH_BODY}
    if set(row.methods) - {"GET", "HEAD"}:
        found |= {_status(StoreFull)}
    return found


def _status(kind: type[BaseException]) -> int:
    return next(STATUS[base] for base in kind.__mro__ if base in STATUS)


def _response_name(status: int) -> str:
    return title_of(status).title().replace(" ", "").replace("-", "")


def _common_responses(schemas: Schemas) -> Iterator[tuple[str, Document]]:
    waits = {"Retry-After": {"description": "seconds", "schema": {"type": "string"}}}
    for status in sorted({*STATUS.values(), *_WITH_BODY}):
        told: Document = {
            "description": title_of(status),
            "content": {_PROBLEM: {"schema": schemas.of(Problem)}},
        }
        yield _response_name(status), {**told, **({"headers": waits} if status in (429, 503, 507) else {})}


__all__ = ["described", "document_of"]
