"""Signs links for instances of a hub, and verifies them."""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import TYPE_CHECKING, Final

from perdure.errors import InstanceNotFound
from perdure.http.access.signed_urls import BadLink, SignedLink, Target, fingerprint_of, sign_all, verify
from perdure.http.mounting import BASE
from perdure.http.principal import Caller, Refused
from perdure.http.table import LINK

if TYPE_CHECKING:
    from starlette.requests import Request

    from perdure.engine.client.client import Client
    from perdure.http.access.keys import Keyring
    from perdure.http.table import Endpoint
    from perdure.model.human_tasks import Person

LASTS: Final = 30 * 24 * 3_600  # the lifetime in seconds of the links in the response to a start
FINGERPRINT: Final = "perdure.fingerprint"
UNBORN: Final = fingerprint_of(b"")
"""The fingerprint in links that are made before the instance starts: there is no salt yet."""
_PARAMETER: Final = re.compile(r"\{(\w+)(?::path)?\}")


class Signer:
    """Signs with the hub's newest signing key, and verifies with all valid ones.

    Parameters:
        client: the client of the hub.
        keys: the keyring with the signing keys.
        public_url: the address for links that are made without a request.
        signs_all: whether to sign management links too. Without access control that is not needed.
    """

    def __init__(self, client: Client, keys: Keyring, public_url: str, *, signs_all: bool) -> None:
        self.client = client
        self.keys = keys
        self.public_url = public_url.rstrip("/")
        self.signs_all = signs_all
        self._making = asyncio.Lock()

    async def prepare(self) -> None:
        """Make sure that a signing key exists. The first one is created when it is first needed."""
        if self.keys.signs():
            return
        async with self._making:
            if not self.keys.signs():
                await self.client.first_link_key()
                self.keys.refresh()

    def sign(
        self,
        operation: str,
        instance_id: str,
        event: str = "",
        *,
        lasts: int = LASTS,
        once: bool = False,
        owner: str = "",
        person: Person | None = None,
    ) -> str:
        """The `sig` for one operation on an instance. Raises InstanceNotFound."""
        return self.sign_all(
            [operation], instance_id, event, lasts=lasts, once=once, owner=owner, person=person
        )[operation]

    def sign_all(
        self,
        operations: list[str],
        instance_id: str,
        event: str = "",
        *,
        lasts: int = LASTS,
        once: bool = False,
        owner: str = "",
        unborn: bool = False,
        person: Person | None = None,
    ) -> dict[str, str]:
        """The `sig` for each operation on an instance, for the holder of the access key `owner`, "" for none.

        Raises InstanceNotFound, unless links can be made before the start (`unborn`), as on Azure. Such a link works
        for each instance that gets the id.
        """
        # After a start the salt is in memory. Only the verification of a link reads the store.
        salt = self.client.gateway.salt_at_hand(instance_id)
        fingerprint = fingerprint_of(salt) if salt else self._fingerprint(instance_id)
        if fingerprint is None and unborn:
            fingerprint = UNBORN
        if fingerprint is None:
            raise InstanceNotFound(f"there is no instance {instance_id!r} in this hub to link to")
        kid, secret = self.keys.newest_signing()
        expires_at = self.keys.now() // 1_000_000 + lasts
        if owner:
            expires_at = min(expires_at, self.keys.expiry(owner) or expires_at)
        nonce = secrets.token_bytes(9) if once else b""
        return sign_all(
            operations,
            self.client.task_hub,
            instance_id,
            event,
            kid=kid,
            secret=secret,
            expires_at=expires_at,
            fingerprint=fingerprint,
            nonce=nonce,
            owner=owner,
            person=person,
        )

    def identify(self, request: Request, endpoint: Endpoint, signatures: list[str]) -> Caller:
        """The holder of the link in a request. Raises Refused if the link does not authorize the request."""
        if not endpoint.link or len(signatures) != 1 or not _is_spelled_right(request, endpoint):
            raise Refused(403, "bad-link", "this link does not authorize this request")
        instance_id = str(request.path_params.get("id", ""))
        link = self._verified(
            signatures[0], endpoint.link, instance_id, str(request.path_params.get("event", ""))
        )
        if link.fingerprint not in (UNBORN, request.scope.get(FINGERPRINT)):
            raise Refused(404, "instance-not-found", "the instance of this link no longer exists")
        request.scope[LINK] = link
        if link.person is None:
            return Caller(f"link (key {link.kid})", link=True)
        return Caller(f"{link.person.name} (link, key {link.kid})", link=True, person=link.person)

    async def look_up(self, request: Request) -> None:
        """Read the fingerprint that a link to this instance must have. Called before `identify`."""
        instance_id = str(request.path_params.get("id", ""))
        request.scope[FINGERPRINT] = await self.client.gateway.read(
            lambda: self._fingerprint(instance_id), brief=True
        )

    def _verified(self, sig: str, operation: str, instance_id: str, event: str) -> SignedLink:
        known, now = self.keys.signing(), self.keys.now() // 1_000_000
        trouble = "this link does not authorize this request"
        for opener, name in _openers(operation, event):
            try:
                link = verify(sig, Target(opener, self.client.task_hub, instance_id, name), known, now)
            except BadLink as error:
                trouble = str(error)
                continue
            if link.owner and not self.keys.counts(link.owner):
                trouble = (
                    f"this link was given to the holder of key {link.owner}, which is revoked or has expired"
                )
                break
            return link
        raise Refused(403, "bad-link", trouble, is_attempt=True)

    def _fingerprint(self, instance_id: str) -> bytes | None:
        stored = self.client.gateway.store.get(instance_id)
        return None if stored is None else fingerprint_of(stored.row.salt)


def _openers(operation: str, event: str) -> list[tuple[str, str]]:
    """The links that authorize an operation: their operation and their event."""
    match operation:
        case "raise":  # a link for all events of an instance has no event
            return list(dict.fromkeys([(operation, event), (operation, "")]))
        case "status":
            return [(operation, event), ("inspect", event)]
    return [(operation, event)]


def link_of(request: Request) -> SignedLink | None:
    """The signed link that authorizes a request, if any."""
    found: SignedLink | None = request.scope.get(LINK)
    return found


def _is_spelled_right(request: Request, endpoint: Endpoint) -> bool:
    """Whether the path is exactly as it was signed. Routes ignore case and a trailing slash, signatures do not."""
    given = request.path_params
    path = _PARAMETER.sub(lambda found: str(given[found[1]]), endpoint.path)
    return bool(request.scope["path"] == request.scope.get(BASE, "") + path)


__all__ = ["LASTS", "Signer", "link_of"]
