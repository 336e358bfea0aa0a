"""The contract of a row of the endpoint table: its parameters, body, responses and errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from perdure.http.parameters import Parameter


@dataclass(frozen=True)
class Body:
    """A JSON body. `kind` is the type it is decoded to, `Any` for any strict JSON."""

    kind: Any = Any
    needed: bool = False
    says: str = ""


@dataclass(frozen=True)
class Answer:
    """A documented response: its status, and the type of its body (None for an empty one).

    Parameters:
        says: a short description.
        headers: the descriptions of its headers, by name.
        leads_to: operations that take the id in this response, as (operation, JSON pointer to the id).
        media: the content type.
    """

    status: int
    kind: Any = None
    says: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    leads_to: tuple[tuple[str, str], ...] = ()
    media: str = "application/json"


@dataclass(frozen=True)
class Contract:
    """Parameters, body, responses and errors of one row.

    `errors` are classes whose statuses are in the table of `perdure.http.problem`. The errors that every request can
    have (no key, too many requests, an unreachable store) are added where the API's description is written.
    """

    takes: tuple[Parameter[Any], ...] = ()
    body: Body | None = None
    answers: tuple[Answer, ...] = ()
    errors: tuple[type[BaseException], ...] = ()


class Problem(TypedDict, total=False):
    """An error document (RFC 9457), with the additional members that Azure's clients read."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    number: str
    instance: str
    pointer: str
    holder: str
    Message: str
    ExceptionMessage: str
    ExceptionType: str


__all__ = ["Answer", "Body", "Contract", "Problem"]
