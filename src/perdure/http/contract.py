"""What a row of the endpoint table promises: the body it takes, what it answers, which errors it knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from perdure.http.parameters import Parameter


@dataclass(frozen=True)
class Body:
    """A JSON body. `kind` is the type it is decoded to, `Any` for whatever strict JSON can carry."""

    kind: Any = Any
    needed: bool = False
    says: str = ""


@dataclass(frozen=True)
class Answer:
    """A 2xx (or a documented other) answer: its status, the type of its body (None for an empty one).

    Parameters:
        says: what it means, in a few words.
        headers: what stands in its headers, by name.
        leads_to: operations that take the id in this answer, as (operation, JSON pointer to the id).
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
    """Parameters, body, answers and errors of one row.

    `errors` are classes whose statuses stand in the table of `perdure.http.problem`; what can happen to every
    request (no key, too many requests, a store that is away) is added where the description is written.
    """

    takes: tuple[Parameter[Any], ...] = ()
    body: Body | None = None
    answers: tuple[Answer, ...] = ()
    errors: tuple[type[BaseException], ...] = ()


class Problem(TypedDict, total=False):
    """An error, after RFC 9457, with the members that Azure's clients look for."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    number: str
    instance: str
    pointer: str
    Message: str
    ExceptionMessage: str
    ExceptionType: str


__all__ = ["Answer", "Body", "Contract", "Problem"]
