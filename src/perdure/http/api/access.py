"""Keys, the audit log and event links over the management API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import msgspec

from perdure.errors import InstanceFinished, InstanceNotFound, KeyNotFound, PayloadError
from perdure.http.contract import Answer, Body, Contract
from perdure.http.parameters import TOP, text, when
from perdure.http.principal import Refused, caller_of
from perdure.http.request_body import demand_json, read_payload
from perdure.http.responses import json_response
from perdure.http.routing import client_of
from perdure.http.table import Endpoint
from perdure.model import payload
from perdure.model.access import AccessKey, AuditPage
from perdure.model.human_tasks import Person

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from perdure.http.access.gate import Access


Lifetime = Annotated[float, msgspec.Meta(gt=0, le=100 * 366 * 24 * 3_600)]
"""A lifetime in seconds, at most a hundred years, which fits into the clock."""


class KeyWanted(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST keys. `expires_in` is in seconds."""

    name: str
    scopes: list[str]
    expires_in: Lifetime | None = None


class LinkWanted(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST instances/{id}/links. `expires_in` is in seconds.

    `for` is the person for whom the link is made, and `roles` are their roles. Only an administrator can name them.
    """

    event: str
    expires_in: Lifetime = 7 * 24 * 3_600
    once: bool = True
    for_: str = msgspec.field(default="", name="for")
    roles: list[str] = []


class KeyMade(AccessKey, frozen=True, kw_only=True):
    """A new key with its secret, which is not shown again."""

    secret: str


class Url(TypedDict):
    """A signed link."""

    url: str


class Who(TypedDict):
    """The caller, with the name that the audit log uses."""

    who: str
    scopes: list[str]


WHO = text("who", "only calls of this caller, with the name in the log")
OPERATION = text("operation", "only this operation")
INSTANCE = text("instanceId", "only calls on this instance")
SINCE = when("since", "only calls at this time or later")
CONTINUATION = text("continuation", "the value in the previous response; continues after that page")


async def list_keys(request: Request) -> Response:
    """GET keys: list access keys, without their secrets."""
    return json_response([document_of_key(key) for key in await client_of(request).keys()])


async def list_link_keys(request: Request) -> Response:
    """GET keys/links: list the keys that sign links, without their secrets."""
    return json_response([document_of_key(key) for key in await client_of(request).link_keys()])


async def create_key(request: Request) -> Response:
    """POST keys: create an access key. Its `secret` is not shown again."""
    wanted: KeyWanted = await _wanted(request, KeyWanted)
    made = await client_of(request).create_key(wanted.name, wanted.scopes, expires_in=wanted.expires_in)
    access_of(request).keys.refresh()
    return json_response({**document_of_key(made.key), "secret": made.secret}, 201)


async def rotate_links(request: Request) -> Response:
    """POST keys/links: create a new key for signing links."""
    made = await client_of(request).rotate_links()
    access_of(request).keys.refresh()
    return json_response(document_of_key(made), 201)


async def revoke_key(request: Request) -> Response:
    """DELETE keys/{key_id}: revoke a key."""
    revoked = await client_of(request).revoke_key(request.path_params["key_id"])
    access_of(request).keys.refresh()
    return json_response(document_of_key(revoked))


async def audit(request: Request) -> Response:
    """GET audit: list the audit log, newest first."""
    await access_of(request).recorder.flush()
    page = await client_of(request).audit(
        who=WHO.of(request),
        operation=OPERATION.of(request),
        instance_id=INSTANCE.of(request),
        since=SINCE.of(request),
        top=TOP.of(request),
        continuation=CONTINUATION.of(request),
    )
    return json_response(page)


async def create_link(request: Request) -> Response:
    """POST instances/{id}/links: create a signed link with which a person can raise one event."""
    wanted: LinkWanted = await _wanted(request, LinkWanted)
    person = _person_named(request, wanted)
    url = await client_of(request).create_event_link(
        request.path_params["id"],
        wanted.event,
        expires_in=wanted.expires_in,
        once=wanted.once,
        for_=person,
        request=None if access_of(request).signer.public_url else request,
    )
    return json_response({"url": url}, 201)


def _person_named(request: Request, wanted: LinkWanted) -> Person | None:
    """The person for whom a link is made. The link proves who its holder is, as a new key would."""
    if not wanted.for_ and not wanted.roles:
        return None
    if not wanted.for_:
        raise PayloadError("a link with roles needs the person who has them: send `for` as well")
    caller = caller_of(request)
    if not caller.may("admin"):
        raise Refused(
            403,
            "forbidden",
            f"a link for a person requires the scope 'admin', as a key for a person does. {caller.who} does not "
            "have it. A link without `for` needs no more than 'operate'",
            who=caller.who,
        )
    return Person(wanted.for_, tuple(wanted.roles))


async def who_am_i(request: Request) -> Response:
    """GET whoami: return the caller's name in the audit log and its scopes."""
    caller = caller_of(request)
    return json_response({"who": caller.who, "scopes": sorted(caller.scopes)})


def document_of_key(key: Any) -> dict[str, Any]:
    """A key as JSON."""
    found: dict[str, Any] = msgspec.to_builtins(key)
    return found


def access_of(request: Request) -> Access:
    """The access control of this host."""
    access: Access = request.app.state.access
    return access


async def _wanted(request: Request, kind: Any) -> Any:
    body = await read_payload(request)
    demand_json(request)
    try:
        wanted = payload.decode(body, kind) if body is not None else None
    except msgspec.ValidationError as error:
        raise PayloadError(str(error)) from error
    if wanted is None:
        raise PayloadError("the body is empty. Send a JSON object")
    return wanted


ENDPOINTS = (
    Endpoint(
        "/keys",
        ("GET",),
        list_keys,
        "admin",
        contract=Contract(answers=(Answer(200, list[AccessKey], "The access keys."),)),
    ),
    Endpoint(
        "/keys/links",
        ("GET",),
        list_link_keys,
        "admin",
        contract=Contract(answers=(Answer(200, list[AccessKey], "The keys that sign links."),)),
    ),
    Endpoint(
        "/keys",
        ("POST",),
        create_key,
        "admin",
        contract=Contract(
            body=Body(KeyWanted, needed=True),
            answers=(Answer(201, KeyMade, "The key and its secret."),),
            errors=(PayloadError,),
        ),
    ),
    Endpoint(
        "/keys/links",
        ("POST",),
        rotate_links,
        "admin",
        contract=Contract(answers=(Answer(201, AccessKey, "The new signing key."),)),
    ),
    Endpoint(
        "/keys/{key_id}",
        ("DELETE",),
        revoke_key,
        "admin",
        contract=Contract(answers=(Answer(200, AccessKey, "The revoked key."),), errors=(KeyNotFound,)),
    ),
    Endpoint(
        "/audit",
        ("GET",),
        audit,
        "admin",
        contract=Contract(
            (WHO, OPERATION, INSTANCE, SINCE, TOP, CONTINUATION),
            None,
            (Answer(200, AuditPage, "One page."),),
            (PayloadError,),
        ),
    ),
    Endpoint(
        "/instances/{id}/links",
        ("POST",),
        create_link,
        "operate",
        contract=Contract(
            body=Body(LinkWanted, needed=True),
            answers=(Answer(201, Url, "The link."),),
            errors=(PayloadError, InstanceNotFound, InstanceFinished),
        ),
    ),
    Endpoint(
        "/whoami",
        ("GET",),
        who_am_i,
        "read",
        contract=Contract(answers=(Answer(200, Who, "The caller."),)),
    ),
)
"""Below /runtime/webhooks/durabletask."""

__all__ = ["ENDPOINTS", "access_of", "document_of_key"]
