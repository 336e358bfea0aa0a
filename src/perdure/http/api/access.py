"""Keys, the audit log and event links over the management API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import msgspec

from perdure.errors import InstanceFinished, InstanceNotFound, KeyNotFound, PayloadError
from perdure.http.contract import Answer, Body, Contract
from perdure.http.parameters import TOP, text, when
from perdure.http.principal import caller_of
from perdure.http.request_body import demand_json, read_payload
from perdure.http.responses import json_response
from perdure.http.routing import client_of
from perdure.http.table import Endpoint
from perdure.model import payload
from perdure.model.access import AccessKey, AuditPage

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from perdure.http.access.gate import Access


Lifetime = Annotated[float, msgspec.Meta(gt=0, le=100 * 366 * 24 * 3_600)]
"""Seconds; a hundred years are enough for anything, and fit into the clock."""


class KeyWanted(msgspec.Struct, forbid_unknown_fields=True):
    """What POST keys takes. `expires_in` is seconds."""

    name: str
    scopes: list[str]
    expires_in: Lifetime | None = None


class LinkWanted(msgspec.Struct, forbid_unknown_fields=True):
    """What POST instances/{id}/links takes. `expires_in` is seconds."""

    event: str
    expires_in: Lifetime = 7 * 24 * 3_600
    once: bool = True


class KeyMade(AccessKey, frozen=True, kw_only=True):
    """A key just made, with the secret that is shown this once."""

    secret: str


class Url(TypedDict):
    """A signed link."""

    url: str


class Who(TypedDict):
    """The caller, as the audit log names it."""

    who: str
    scopes: list[str]


WHO = text("who", "the caller, as the log names it")
OPERATION = text("operation", "the operation")
INSTANCE = text("instanceId", "the instance")
SINCE = when("since", "at this instant or later")
CONTINUATION = text("continuation", "from the answer before: goes on where that ended")


async def list_keys(request: Request) -> Response:
    """GET keys: the keys that callers show, without their secrets."""
    return json_response([document_of_key(key) for key in await client_of(request).keys()])


async def list_link_keys(request: Request) -> Response:
    """GET keys/links: the keys that links are signed with, without their secrets."""
    return json_response([document_of_key(key) for key in await client_of(request).link_keys()])


async def create_key(request: Request) -> Response:
    """POST keys: a new key; its `secret` is shown this once."""
    wanted: KeyWanted = await _wanted(request, KeyWanted)
    made = await client_of(request).create_key(wanted.name, wanted.scopes, expires_in=wanted.expires_in)
    access_of(request).keys.refresh()
    return json_response({**document_of_key(made.key), "secret": made.secret}, 201)


async def rotate_links(request: Request) -> Response:
    """POST keys/links: sign links with a new key from now on."""
    made = await client_of(request).rotate_links()
    access_of(request).keys.refresh()
    return json_response(document_of_key(made), 201)


async def revoke_key(request: Request) -> Response:
    """DELETE keys/{key_id}: the key opens nothing from now on."""
    revoked = await client_of(request).revoke_key(request.path_params["key_id"])
    access_of(request).keys.refresh()
    return json_response(document_of_key(revoked))


async def audit(request: Request) -> Response:
    """GET audit: the audit log, newest first."""
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
    """POST instances/{id}/links: a signed link to decide one event."""
    wanted: LinkWanted = await _wanted(request, LinkWanted)
    url = await client_of(request).create_event_link(
        request.path_params["id"],
        wanted.event,
        expires_in=wanted.expires_in,
        once=wanted.once,
        request=None if access_of(request).signer.public_url else request,
    )
    return json_response({"url": url}, 201)


async def who_am_i(request: Request) -> Response:
    """GET whoami: the caller as the audit log names it, and what they may do."""
    caller = caller_of(request)
    return json_response({"who": caller.who, "scopes": sorted(caller.scopes)})


def document_of_key(key: Any) -> dict[str, Any]:
    """A key as JSON."""
    found: dict[str, Any] = msgspec.to_builtins(key)
    return found


def access_of(request: Request) -> Access:
    """The gate of this host."""
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
        raise PayloadError("the body is empty: this takes a JSON object")
    return wanted


ENDPOINTS = (
    Endpoint(
        "/keys",
        ("GET",),
        list_keys,
        "admin",
        contract=Contract(answers=(Answer(200, list[AccessKey], "The keys that callers show."),)),
    ),
    Endpoint(
        "/keys/links",
        ("GET",),
        list_link_keys,
        "admin",
        contract=Contract(answers=(Answer(200, list[AccessKey], "The keys that links are signed with."),)),
    ),
    Endpoint(
        "/keys",
        ("POST",),
        create_key,
        "admin",
        contract=Contract(
            body=Body(KeyWanted, needed=True),
            answers=(Answer(201, KeyMade, "The key, and its secret."),),
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
        contract=Contract(answers=(Answer(200, AccessKey, "Revoked."),), errors=(KeyNotFound,)),
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
