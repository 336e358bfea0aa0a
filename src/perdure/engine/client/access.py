"""Access verbs of `Client`: keys, the audit log, links for callers.

Keys are rows of the hub. Several active keys may have the same scopes, so that a key is rotated without an
outage: create the new key, distribute it, revoke the old one. The store keeps only the digest of an access key.
It keeps a key that signs links unhashed, because signing needs the key itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from perdure.engine.client.paging import number_in
from perdure.engine.core.audit import LONG, NOTE, SHORT, AuditMemo, AuditNote, clean
from perdure.errors import KeyNotFound, PayloadError
from perdure.model.access import (
    AccessKey,
    AuditPage,
    AuditRecord,
    NewKey,
    checked_scopes,
    digest_of,
    key_id_of,
    key_of,
)
from perdure.model.durations import Seconds, instant, micros, moment
from perdure.model.human_tasks import Person
from perdure.model.names import is_name, not_a_name
from perdure.model.records import AuditFilter, KeyRow

if TYPE_CHECKING:
    from datetime import datetime

    from perdure.engine.client.gateway import Gateway, Links

ACCESS, LINK = "access", "link"
FIRST = "1stlinks"
"""The id of the first key that signs links. Workers that create it at the same time use the same id and share
one row.
"""
_IN_PROCESS = "in-process"


class AccessVerbs:
    """Keys, audit log and links; a part of `Client`."""

    gateway: Gateway
    links: Links | None

    async def create_key(
        self, name: str, scopes: Iterable[str], *, expires_in: Seconds | None = None
    ) -> NewKey:
        """Create a key and return it with its secret, which is shown only once.

        Parameters:
            name: the holder, for people; 1 to 200 characters.
            scopes: metrics, read, operate, admin, function, or function:NAME for one client function.
            expires_in: seconds or a timedelta; None for a key that does not expire.

        Raises:
            PayloadError for an invalid name or scope.
        """
        try:
            wanted = checked_scopes(scopes)
        except ValueError as error:
            raise PayloadError(str(error)) from None
        if not name.strip() or len(name) > SHORT or not name.isprintable():
            raise PayloadError(f"a key's name is 1 to {SHORT} printable characters")
        key_id = key_id_of(secrets.randbits(64))
        text = key_of(key_id, secrets.randbits(256))
        row = self._key(ACCESS, key_id, name, wanted, digest_of(text), expires_in)
        await self._record([row], "create_key", f"{key_id} {name}: {' '.join(wanted)}")
        return NewKey(shown_key(row), text)

    async def rotate_links(self) -> AccessKey:
        """Sign links with a new key from now on. Earlier links stay valid until they expire or their key is
        revoked.
        """
        row = self._signing_key()
        await self._record([row], "rotate_links", row.key_id)
        return shown_key(row)

    async def first_link_key(self) -> None:
        """Create a key that signs links if the hub has none.

        The first caller that needs the key creates it in one transaction. Concurrent callers write the same
        row, and the store keeps the first.
        """
        rows = await self.gateway.read(self.gateway.store.keys)
        if any(row.kind == LINK and row.revoked_at is None for row in rows):
            return
        is_first = all(row.key_id != FIRST for row in rows)
        row = self._signing_key(FIRST if is_first else "")
        await self.gateway.record(AuditMemo(keys=[row._replace(created_by=_IN_PROCESS)]))

    async def keys(self) -> list[AccessKey]:
        """The access keys, oldest first, including expired and revoked keys."""
        return await self._keys_of(ACCESS)

    async def link_keys(self) -> list[AccessKey]:
        """The keys that sign links, oldest first, including expired and revoked keys."""
        return await self._keys_of(LINK)

    async def _keys_of(self, kind: str) -> list[AccessKey]:
        rows = await self.gateway.read(self.gateway.store.keys)
        return [shown_key(row) for row in rows if row.kind == kind]

    async def revoke_key(self, key_id: str) -> AccessKey:
        """Revoke a key. Revoking it again changes nothing.

        A new key replaces the last key that signs links. Raises KeyNotFound.
        """
        rows = await self.gateway.read(self.gateway.store.keys)
        found = next((row for row in rows if row.key_id == key_id), None)
        if found is None:
            raise KeyNotFound(f"no key {key_id[:60]!r} in this hub: `perdure keys list` shows its keys")
        if found.revoked_at is None:
            signing = [row for row in rows if row.kind == LINK and row.revoked_at is None]
            next_ones = [self._signing_key()] if signing == [found] else []
            found = found._replace(revoked_at=self.gateway.now())
            await self._record([found, *next_ones], "revoke_key", f"{key_id} {found.name}")
        return shown_key(found)

    async def audit(
        self,
        *,
        who: str | None = None,
        operation: str | None = None,
        instance_id: str | None = None,
        since: datetime | None = None,
        top: int = 100,
        continuation: str | None = None,
    ) -> AuditPage:
        """The audit log, newest first, `top` (1 to 1000) rows a page.

        Parameters:
            who: only entries of this caller, as the log names it.
            operation: only this operation, such as terminate or create_key.
            instance_id: only entries about this instance.
            since: only entries at or after this time.
            continuation: the continuation of the previous page.
        """
        if not 1 <= top <= 1_000:
            raise PayloadError(f"top is 1 to 1000, not {top}")
        wanted = AuditFilter(
            who=who,
            operation=operation,
            instance_id=instance_id,
            since=instant(since, "since") if since else None,
            before_no=number_in(continuation, "the audit log"),
            top=top,
        )
        rows = await self.gateway.read(lambda: self.gateway.store.audit(wanted))
        records = [
            AuditRecord(
                time=moment(row.at),
                who=row.who,
                address=row.address,
                operation=row.operation,
                instance_id=row.instance_id,
                detail=row.detail,
                outcome=row.outcome,
                times=row.times,
            )
            for _, row in rows
        ]
        return AuditPage(records, str(rows[-1][0]) if len(rows) == top else None)

    async def create_event_link(
        self,
        instance_id: str,
        event_name: str,
        *,
        expires_in: Seconds = 7 * 24 * 3_600,
        once: bool = True,
        for_: Person | str | None = None,
        request: Any = None,
    ) -> str:
        """A link that lets its holder, without a key, raise one event of one instance: an approval by mail.

        The link opens a page with the question. Only a button of that page raises the event, because mail
        programs open links by themselves. The page shows nothing else of the instance and raises no other
        event.

        Parameters:
            instance_id: the instance that waits, or will wait, for the event.
            event_name: the event; the page has the fields of its type when that type is known.
            expires_in: seconds or a timedelta; seven days by default.
            once: reject a second use with 410.
            for_: the person to whom you send the link: a name, or a `Person` with the roles that they have. The
                history, the audit log and the task then name the person as the one who decided, and a human task
                counts the decision. Everyone who has the link can use it, so send it to that person only. The name
                can be read in the link.
            request: in a route, the request whose origin the link gets; default is the public URL of the
                server, else its address.

        Raises:
            InstanceNotFound, PayloadError for a name or role that is not 1 to 200 printable characters, and
            RuntimeError when the client has no HTTP host.
        """
        person = person_of(for_)
        if self.links is None:
            raise RuntimeError(
                "this client has no HTTP host, so it cannot make links: use it inside a route, under "
                "`perdure run`, or mount app.asgi()"
            )
        return await self.links.event_link(request, instance_id, event_name, micros(expires_in), once, person)

    # -------------------------------------------------------------------------------------------- writing

    def _signing_key(self, key_id: str = "") -> KeyRow:
        chosen = key_id or key_id_of(secrets.randbits(64))
        return self._key(LINK, chosen, "signs links", (), secrets.token_bytes(32), None)

    def _key(
        self,
        kind: str,
        key_id: str,
        name: str,
        scopes: tuple[str, ...],
        secret: bytes,
        expires_in: Seconds | None,
    ) -> KeyRow:
        now = self.gateway.now()
        if expires_in is not None and micros(expires_in) <= 0:
            raise PayloadError("expires_in must be more than 0: a key expires in the future")
        expires = None if expires_in is None else now + micros(expires_in)
        by = clean(self._note("").who, SHORT)
        return KeyRow(key_id, kind, name, " ".join(scopes), secret, now, by, expires, None, None)

    async def _record(self, rows: list[KeyRow], operation: str, detail: str) -> None:
        note = self._note(operation)
        note.is_taken = True
        written = note.row(self.gateway.now(), "")._replace(operation=operation, detail=clean(detail, LONG))
        await self.gateway.record(AuditMemo(keys=rows, audit=[written]))

    def _note(self, operation: str) -> AuditNote:
        return NOTE.get() or AuditNote(_IN_PROCESS, "", operation)


def person_of(given: Person | str | None) -> Person | None:
    """The person that a link is made for. Raises PayloadError."""
    person = Person(given) if isinstance(given, str) else given
    for name in (person.name, *person.roles) if person is not None else ():
        if not is_name(name):
            raise PayloadError(not_a_name(name, "the person of a link, and each of their roles,"))
    return person


def shown_key(row: KeyRow) -> AccessKey:
    """A row without its secret."""
    expires, revoked, used = row.expires_at, row.revoked_at, row.last_used_at
    return AccessKey(
        key_id=row.key_id,
        kind=row.kind,
        name=row.name,
        scopes=tuple(row.scopes.split()),
        created_time=moment(row.created_at),
        created_by=row.created_by,
        expires_time=None if expires is None else moment(expires),
        revoked_time=None if revoked is None else moment(revoked),
        last_used_time=None if used is None else moment(used),
    )


__all__ = ["ACCESS", "FIRST", "LINK", "AccessVerbs", "person_of", "shown_key"]
