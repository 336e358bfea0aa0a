"""The access check before every route: it authenticates the caller, checks the scope, and records the request.

A route is a row of a table and always has a scope (`perdure.http.routing`). The check is added where rows become
routes, so every route has it. A request needs one credential. The check uses the first it finds: the header
`x-functions-key`, `Authorization: Bearer`, the parameter `code`, a signed link, the browser's session, or the
application's own sign-in (`App(identify=...)`). A wrong credential is rejected without trying the next. A request
with two keys is rejected, because two readers of the request could each use a different one.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import lru_cache
from inspect import isawaitable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from perdure.engine.core.audit import NOTE, AuditMemo, AuditNote
from perdure.errors import PerdureError
from perdure.http.access import sessions
from perdure.http.access.audit import AuditRecorder
from perdure.http.access.keys import Keyring
from perdure.http.access.limits import Buckets, RateLimits, RequestsInHand, limited_address
from perdure.http.access.link_signer import Signer, link_of
from perdure.http.access.stream_limits import StreamLimits
from perdure.http.guard import SAFE, is_foreign
from perdure.http.principal import ANONYMOUS, ANYONE, CALLER, Caller, Refused, address_of
from perdure.http.shared_reads import SharedReads
from perdure.http.table import CODE, ENDPOINT
from perdure.model.access import PREFIX, checked_identity
from perdure.model.human_tasks import Person

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from starlette.requests import Request
    from starlette.responses import Response

    from perdure.engine.client.client import Client
    from perdure.http.access.sessions import Session
    from perdure.http.table import Endpoint
    from perdure.model.access import Identify


class IncomingTraces(Protocol):
    """What continues the traces of callers."""

    def incoming(self, headers: Mapping[str, str], *, is_trusted: bool) -> AbstractContextManager[None]:
        """The block in which a request is handled."""


log = logging.getLogger("perdure.http")
SIGNED_IN: Final = "perdure.signed-in"
"""The key in a request's scope for the caller whom the application's own sign-in knows."""
DENIALS: Final = ("unauthenticated", "forbidden", "bad-link", "rate-limited", "too-many-failures")
"""Codes of errors that are counted from 0, so that the first of them is an increase."""


class Access:
    """The access control of one server.

    Parameters:
        client: the client of the served hub.
        token: the start-up token, with full access from this machine, or None.
        admin_key: a key with full access from the settings, or None.
        is_open: accept every caller. For an application behind another access control, and for tests.
        limits: the rate limits for one caller.
        public_url: the address for links that are made without a request.
        trust_traceparent: whose `traceparent` continues in our spans: of callers with keys, of all, or of none.
    """

    def __init__(
        self,
        client: Client,
        *,
        token: str | None = None,
        admin_key: str | None = None,
        is_open: bool = False,
        limits: RateLimits | None = None,
        public_url: str = "",
        trust_traceparent: str = "keys",
    ) -> None:
        gateway = self._gateway = client.gateway
        self.is_open = is_open
        self.trust_traceparent = trust_traceparent
        self.tracing: IncomingTraces | None = None
        self.identify: Identify | None = None
        """The application's own sign-in."""
        self.token = token
        self.limits = limits or RateLimits()
        self.keys = Keyring(
            lambda: gateway.store.keys(),
            gateway.now,
            time.monotonic,
            token=token,
            admin_key=admin_key,
        )
        self.signer = Signer(client, self.keys, public_url, signs_all=not is_open)
        self.recorder = AuditRecorder(gateway)
        self.deciding: set[str] = set()
        """The nonces of links in use at this moment."""
        self._ended = sessions.Ended(lambda name: gateway.store.answered(name), time.monotonic)
        self.shares = StreamLimits()
        self.looks = SharedReads(time.monotonic)
        self._requests = Buckets(self.limits.rate, self.limits.burst, time.monotonic)
        self._in_hand = RequestsInHand(self.limits.in_hand)
        self.denied = dict.fromkeys(DENIALS, 0)
        """How many requests were denied, by the code of the error."""
        self._failures = Buckets(self.limits.failures, self.limits.failure_burst, time.monotonic)

    async def close(self) -> None:
        """Write the waiting rows of the audit log."""
        await self.recorder.close()

    # ------------------------------------------------------------------------------------------- the check

    async def serve(self, request: Request, endpoint: Endpoint) -> Response:
        """Check the request and call the endpoint's handler. Raises Refused, and SignedIn for a token."""
        request.scope[ENDPOINT] = endpoint
        if endpoint.scope != "open" or (endpoint.function and _shows_key(request)):
            await self._look_up(request)
        is_answered_at_once = endpoint.scope == "open" and not endpoint.function
        held_by: tuple[str, ...] = ()
        try:
            if self.identify is not None and not is_answered_at_once:
                await self._ask_sign_in(request)
            caller = self.admit(request, endpoint)
            if not is_answered_at_once:
                held_by = _held_by(request, caller)
                self._in_hand.take(*held_by)
        except Refused as refused:
            self._note_refusal(request, endpoint, refused)
            raise
        except SignedIn as signed:
            note = AuditNote(signed.caller.who, address_of(request), "login")
            self.recorder.add(note.row(self.keys.now(), ""))
            raise
        request.scope[CALLER] = caller
        if is_answered_at_once:
            return await endpoint.handler(request)
        try:
            await self.signer.prepare()
            if self.tracing is None:
                return await self._handled(request, endpoint, caller)
            with self.tracing.incoming(request.headers, is_trusted=self._trusts(caller)):
                return await self._handled(request, endpoint, caller)
        finally:
            self._in_hand.leave(*held_by)

    async def _handled(self, request: Request, endpoint: Endpoint, caller: Caller) -> Response:
        if endpoint.function or endpoint.scope == "metrics":  # not in the audit log
            return await endpoint.handler(request)
        return await self._noted(request, endpoint, caller)

    def _trusts(self, caller: Caller) -> bool:
        """Whether the trace of a caller becomes the parent of ours. A signed link is no key."""
        has_key = caller not in (ANONYMOUS, ANYONE) and not caller.link
        return self.trust_traceparent == "all" or (self.trust_traceparent == "keys" and has_key)

    async def _look_up(self, request: Request) -> None:
        """Read from the store what `admit` needs, off the event loop, so that a slow store blocks no request."""
        if self.keys.is_stale:
            await self._gateway.read(self.keys.refresh_stale, brief=True)
        if b"sig=" in request.scope["query_string"]:
            await self.signer.look_up(request)
        session = sessions.session_of(request) if "cookie" in request.headers else None
        if session is not None and not self._ended.is_known(session):
            await self._gateway.read(lambda: self._ended.is_ended(session), brief=True)

    async def _ask_sign_in(self, request: Request) -> None:
        """Ask the application who sent the request, for `_identify`. Raises Refused when it fails.

        A request with a credential of its own is not asked about, and neither is one by the page of another site.
        """
        request.scope.pop(SIGNED_IN, None)
        if self.identify is None or _shows_credential(request) or _is_embedded(request):
            return
        try:
            found = self.identify(request)
            identity = checked_identity(await found if isawaitable(found) else found)
        except Exception as error:
            log.exception("App(identify=...) failed for a request to %s", request.url.path)
            raise Refused(
                500,
                "sign-in-failed",
                "the application's own sign-in failed, so the sender of this request is not known. Its error is in "
                "the server's log, under App(identify=...)",
            ) from error
        if identity is not None:
            scopes = frozenset(identity.scopes)
            person = Person(identity.name, identity.roles)
            request.scope[SIGNED_IN] = Caller(f"{identity.name} (signed in)", scopes, person=person)

    def admit(self, request: Request, endpoint: Endpoint) -> Caller:
        """The caller, if it has the endpoint's scope. Raises Refused."""
        address = address_of(request)
        if endpoint.scope == "open":
            self._within_rate(f"address {limited_address(address)}")
            return self._known(request, address) if endpoint.function else ANONYMOUS
        if self.is_open and not request.query_params.getlist("sig"):
            self._within_rate(f"address {limited_address(address)}")
            return self._anyone(request)
        if endpoint.scope == "metrics" and self._is_unlocked(request, address):
            self._within_rate(f"address {limited_address(address)}")
            return ANONYMOUS
        try:
            caller = self._identify(request, endpoint, address)
        except Refused as refused:
            if refused.is_attempt:
                self._count_failure(address)
            raise
        request.scope[CALLER] = caller
        self._within_rate(_limited_as(request, caller))
        if caller.key_id:
            self.recorder.use(caller.key_id, self.keys.now(), self.keys.used(caller.key_id))
        if not caller.link and not caller.may(endpoint.scope, endpoint.function):
            needed = f"function:{endpoint.function}" if endpoint.scope == "function" else endpoint.scope
            raise Refused(
                403,
                "forbidden",
                f"this request requires the scope {needed!r}. {caller.who} does not have it",
                who=caller.who,
            )
        return caller

    def _is_unlocked(self, request: Request, address: str) -> bool:
        """Whether the metrics are open: to requests of this machine without a key, before the hub has keys."""
        return _is_local(address) and not self.keys.has_keys() and shown_key(request) is None

    def caller_of(self, request: Request) -> Caller:
        """The caller of a request, also of one to a route of the surrounding site."""
        found: Caller | None = request.scope.get(CALLER)
        return self._known(request, address_of(request)) if found is None else found

    def _known(self, request: Request, address: str) -> Caller:
        """The caller of an open route: the holder of the key in the request, or else anonymous."""
        if self.is_open:
            return self._anyone(request)
        shown = _key_of_ours(request) if _shows_key(request) else None
        if shown is None:
            signed_in: Caller = request.scope.get(SIGNED_IN, ANONYMOUS)
            return signed_in
        try:
            return self.keys.identify(shown, is_local=_is_local(address))
        except Refused as refused:
            if refused.is_attempt:
                self._count_failure(address)
            return ANONYMOUS

    def _anyone(self, request: Request) -> Caller:
        """The caller where every caller may do everything. The application's own sign-in can name the person."""
        signed_in: Caller | None = request.scope.get(SIGNED_IN)
        return ANYONE if signed_in is None else replace(signed_in, scopes=ANYONE.scopes)

    async def lets_in(self, request: Request) -> bool:
        """Whether the request would be accepted again. For streams that outlive the revocation of a key."""
        try:
            await self.demand_still(request)
        except Refused:
            return False
        return True

    async def demand_still(self, request: Request) -> None:
        """For answers that were waited for. Raises Refused where the request would not be accepted again."""
        endpoint: Endpoint = request.scope[ENDPOINT]
        if endpoint.scope == "open" or self.is_open:
            return
        await self._look_up(request)
        if self.identify is not None:
            await self._ask_sign_in(request)  # the person may have lost a role
        request.scope[CALLER] = self._identify(request, endpoint, address_of(request))

    def _identify(self, request: Request, endpoint: Endpoint, address: str) -> Caller:
        is_local = _is_local(address)
        shown = shown_key(request)
        if shown is not None:
            return self.keys.identify(shown, is_local=is_local)
        signatures = request.query_params.getlist("sig")
        if signatures:
            return self.signer.identify(request, endpoint, signatures)
        tokens = request.query_params.getlist("token")
        if tokens and endpoint.is_page and request.method == "GET" and len(tokens) == 1:
            raise SignedIn(self.keys.identify(tokens[0], is_local=is_local))
        if (request.method in SAFE or endpoint.is_page) and not _is_embedded(request):
            found = self._in_session(request, is_local=is_local)
            if found is not None:
                return found[0]
        signed_in: Caller | None = request.scope.get(SIGNED_IN)
        if signed_in is not None:
            return signed_in
        if not is_local and not self.keys.has_keys():
            raise Refused(
                403,
                "no-keys",
                "this server has no access keys yet and accepts requests from its own machine only. Create a key "
                "there with `perdure keys create`",
            )
        raise Refused(
            401,
            "unauthenticated",
            "this request needs an access key: in the header x-functions-key, as Authorization: Bearer, or in the "
            "parameter code. Create a key with `perdure keys create`, or open the address that the server printed "
            "at its start, which contains the token",
        )

    def _in_session(self, request: Request, *, is_local: bool) -> tuple[Caller, Session] | None:
        """The caller of the browser's session and the session; None without a valid session."""
        session = sessions.session_of(request)
        found = self.keys.credential(session.subject, is_local=is_local) if session is not None else None
        if session is None or found is None or not session.holds(found[1], self.keys.now() // 1_000_000):
            return None
        return None if self._ended.is_ended(session) else (found[0], session)

    async def sign_out(self, request: Request) -> None:
        """End the browser's session on every server of the hub. Returns when that is durable."""
        found = self._in_session(request, is_local=_is_local(address_of(request)))
        if found is None:
            return
        caller, session = found
        note = AuditNote(caller.who, address_of(request), "logout").row(self.keys.now(), "")
        kept = sessions.signed_out(session, (session.expires_at + 60) * 1_000_000)
        await self._gateway.record(AuditMemo(seen=[kept], audit=[note]))
        self._ended.note(session, ended=True)

    def sign_in(self, request: Request, key: str) -> Caller:
        """The caller who entered a key on the login page. Raises Refused."""
        endpoint: Endpoint = request.scope[ENDPOINT]
        address = address_of(request)
        try:
            caller = self.keys.identify(key, is_local=_is_local(address))
        except Refused as refused:
            self._note_refusal(request, endpoint, refused)
            self._count_failure(address)
            raise
        self.recorder.add(AuditNote(caller.who, address, endpoint.operation).row(self.keys.now(), ""))
        return caller

    def _within_rate(self, name: str) -> None:
        wait = self._requests.take(name)
        if wait:
            raise Refused(
                429,
                "rate-limited",
                "this caller sends more requests than the server accepts. Wait as long as Retry-After says",
                retry_after=wait,
            )

    def _count_failure(self, address: str) -> None:
        """Count a failed attempt from an address. Raises Refused if there were too many."""
        wait = self._failures.take(limited_address(address))
        if wait:
            raise Refused(
                429,
                "too-many-failures",
                "too many failed attempts from this address. Wait as long as Retry-After says",
                retry_after=wait,
            ) from None

    # ---------------------------------------------------------------------------------------- the audit log

    async def _noted(self, request: Request, endpoint: Endpoint, caller: Caller) -> Response:
        """Handle the request. Its operation is in the audit log before the response is sent."""
        note = _note_of(request, endpoint, caller)
        before = NOTE.set(note)
        try:
            response = await endpoint.handler(request)
        except Exception as error:
            self._remember(note, request, _code_of(error))
            raise
        finally:
            NOTE.reset(before)
        if response.status_code >= 400:
            self._remember(note, request, request.scope.get(CODE) or str(response.status_code))
        elif request.method in SAFE:
            self._remember(note, request, "ok")
        elif not note.is_taken:
            await self.recorder.write(note.row(self.keys.now(), _instance_of(request)))
        return response

    def _remember(self, note: AuditNote, request: Request, outcome: str) -> None:
        self.recorder.add(note.row(self.keys.now(), _instance_of(request), outcome))

    def count_denied(self, code: str) -> None:
        """Count a denied request, by the code of the error."""
        self.denied[code] = self.denied.get(code, 0) + 1

    def _note_refusal(self, request: Request, endpoint: Endpoint, refused: Refused) -> None:
        """Record a rejected request, without the instance id for unknown callers and for rate limits.

        Unknown callers choose the ids they send, and a caller over the limit sends many. With ids, each request would
        add a row.
        """
        self.count_denied(refused.code)
        caller: Caller = request.scope.get(CALLER, ANONYMOUS)
        if caller is ANONYMOUS or refused.status == 429:
            who = refused.who if caller is ANONYMOUS else caller.who
            note, about = AuditNote(who, address_of(request), endpoint.operation, refused.code), ""
        else:
            note, about = _note_of(request, endpoint, caller), _instance_of(request)
        self.recorder.add(note.row(self.keys.now(), about, refused.code))


class SignedIn(Exception):
    """A page was opened with a token in its URL. The browser gets a session and a redirect to the bare URL."""

    def __init__(self, caller: Caller) -> None:
        super().__init__(caller.who)
        self.caller = caller


def shown_key(request: Request) -> str | None:
    """The key in a request, from any of the four places, or None. Raises Refused for more than one."""
    found = request.headers.getlist("x-functions-key")
    found += map(_bearer, request.headers.getlist("authorization"))
    if request.scope["query_string"]:
        found += request.query_params.getlist("code")
    if "credential" in request.path_params:
        found.append(request.path_params["credential"])
    if len(found) > 1:
        raise Refused(
            400, "ambiguous-credentials", "the request has more than one key. Send one key, in one place"
        )
    return found[0] if found else None


def _shows_key(request: Request) -> bool:
    """Whether the request has anything in the places for keys."""
    headers = request.headers
    return (
        "x-functions-key" in headers
        or "authorization" in headers
        or b"code=" in request.scope["query_string"]
    )


def _shows_credential(request: Request) -> bool:
    """Whether the request has a key or a signed link."""
    return (
        _shows_key(request) or "credential" in request.path_params or b"sig=" in request.scope["query_string"]
    )


def _key_of_ours(request: Request) -> str | None:
    """The key in a request to an open route, if it is a key of this server.

    On an open route `Authorization` and `code` can belong to the application, such as the code of an OAuth sign-in.
    """
    try:
        shown = shown_key(request)
    except Refused:
        return None
    is_ours = shown is not None and (shown.startswith(PREFIX) or "x-functions-key" in request.headers)
    return shown if is_ours else None


def _bearer(header: str) -> str:
    kind, _, key = header.partition(" ")
    return key.strip() if kind.lower() == "bearer" else ""


def _limited_as(request: Request, caller: Caller) -> str:
    """The name of the bucket that limits a request: that of a key, or of one link to one instance."""
    link = link_of(request)
    if link is None:
        return caller.who
    # Two links can differ only in their expiry.
    return f"link {link.operation} {link.expires_at} {link.nonce} {_instance_of(request)}"


def _held_by(request: Request, caller: Caller) -> tuple[str, ...]:
    """The names under which concurrent requests are counted: the key, or the address and the link."""
    if caller.scopes and caller is not ANYONE:
        return (caller.who,)
    name = f"address {limited_address(address_of(request))}"
    return (name, _limited_as(request, caller)) if caller.link else (name,)


def _is_embedded(request: Request) -> bool:
    """Whether a page of another origin embeds this resource, instead of linking to it."""
    return is_foreign(request.headers) and request.headers.get("sec-fetch-mode") != "navigate"


@lru_cache(256)
def _is_local(address: str) -> bool:
    """Whether the peer is this machine. A peer without an IP address did not come over a network."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return True
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def _note_of(request: Request, endpoint: Endpoint, caller: Caller) -> AuditNote:
    path = request.path_params
    detail = path.get("event") or path.get("name") or path.get("queue") or ""
    if not detail and request.scope["query_string"]:
        detail = request.query_params.get("reason", "")
    if endpoint.operation == "restart":  # the row's instance is the new run
        detail = _instance_of(request)
    return AuditNote(caller.who, address_of(request), endpoint.operation, str(detail))


def _instance_of(request: Request) -> str:
    return str(request.path_params.get("id", ""))


def _code_of(error: Exception) -> str:
    match error:
        case PerdureError():
            return error.code
        case HTTPException():
            return str(error.status_code)
        case ClientDisconnect():
            return "incomplete-request"
    return "timeout" if isinstance(error, TimeoutError) else "error"


__all__ = ["ENDPOINT", "Access", "SignedIn", "shown_key"]
