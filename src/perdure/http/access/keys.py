"""Credentials and their validity.

There are three kinds. The keys of the hub are rows, which are reread every second. So a new key works, and a revoked
key stops working, within that time on every server of the hub. The administrator's key from the environment
(`PERDURE_ADMIN_KEY`) is for machines that are set up before the hub exists. The start-up token is for people who can
read the server's output or its side file. It is generated at each start and accepted from this machine only. All are
compared as digests and in constant time. An unknown key takes as long as a wrong one.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from perdure.engine.client.access import ACCESS, LINK
from perdure.http.principal import Caller, Refused
from perdure.model.access import digest_of, id_of, roles_in
from perdure.model.human_tasks import Person

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perdure.model.records import KeyRow

FRESH: Final = 1.0  # seconds until the rows are reread
SOON: Final = 0.2  # the same for an id that is not among them
TOKEN, ENVIRONMENT = "start-up-token", "PERDURE-ADMIN-KEY"
_ADMIN: Final = frozenset({"admin"})
_NOBODY: Final = digest_of("nobody")
WEAKEST: Final = 24  # the least characters of a key that people choose


class Keyring:
    """The valid credentials, at most `FRESH` seconds old.

    Parameters:
        rows: reads the hub's keys.
        now: a clock, in microseconds since 1970.
        monotonic: a clock, in seconds.
        token: the start-up token, or None.
        admin_key: the administrator's key from the environment, or None.

    Raises:
        ValueError for an `admin_key` that is too short.
    """

    def __init__(
        self,
        rows: Callable[[], list[KeyRow]],
        now: Callable[[], int],
        monotonic: Callable[[], float],
        *,
        token: str | None = None,
        admin_key: str | None = None,
    ) -> None:
        if admin_key is not None and len(admin_key) < WEAKEST:
            raise ValueError(
                f"PERDURE_ADMIN_KEY has {len(admin_key)} characters and can be guessed. Use at least {WEAKEST} "
                "characters. `python -c 'import secrets; print(secrets.token_urlsafe(32))'` prints a suitable key"
            )
        self._rows, self.now, self._monotonic = rows, now, monotonic
        self._token = None if token is None else digest_of(token)
        self._admin = None if admin_key is None else digest_of(admin_key)
        self._known: dict[str, KeyRow] = {}
        self._newest: KeyRow | None = None  # the newest key that signs links, looked up when needed
        self._read_at: float | None = None  # when the read began
        self._replacing = threading.Lock()

    def refresh(self, older_than: float = 0.0) -> None:
        """Reread the rows, unless they were read less than `older_than` seconds ago."""
        began = self._monotonic()
        if self._read_at is not None and began - self._read_at < older_than:
            return
        known = {row.key_id: row for row in self._rows()}
        with self._replacing:
            # A slow read of another thread must not bring back what a later one no longer saw, or hide what it saw.
            if self._read_at is None or began >= self._read_at:
                self._known, self._newest, self._read_at = known, None, began

    @property
    def is_stale(self) -> bool:
        """Whether the rows have to be reread."""
        return self._read_at is None or self._monotonic() - self._read_at >= FRESH

    def refresh_stale(self) -> None:
        self.refresh(FRESH)

    def has_keys(self) -> bool:
        """Whether the hub has a valid access key, or the administrator's key is set."""
        self.refresh(FRESH)
        return self._admin is not None or any(
            row.kind == ACCESS and self._trouble(row) is None for row in self._known.values()
        )

    def identify(self, text: str, *, is_local: bool) -> Caller:
        """The caller with this key. Raises Refused, with the same message for every key that never existed."""
        digest = digest_of(text)
        for subject, known in ((TOKEN, self._token if is_local else None), (ENVIRONMENT, self._admin)):
            if hmac.compare_digest(digest, known or _NOBODY) and known is not None:
                return Caller(subject, _ADMIN)
        key_id = id_of(text) or ""
        row = self._find(key_id)
        found = hmac.compare_digest(digest, row.secret if row is not None else _NOBODY)
        if row is None or not found:
            raise Refused(
                401,
                "unauthenticated",
                "this key is not valid here. It is wrong, or belongs to another hub",
                is_attempt=True,
            )
        return self._caller_of(row)

    def credential(self, subject: str, *, is_local: bool) -> tuple[Caller, bytes] | None:
        """The caller and the digest for a session's subject; None if the credential is no longer valid."""
        if subject == TOKEN:
            return (Caller(TOKEN, _ADMIN, session=True), self._token) if self._token and is_local else None
        if subject == ENVIRONMENT:
            return (Caller(ENVIRONMENT, _ADMIN, session=True), self._admin) if self._admin else None
        row = self._find(subject)
        if row is None or self._trouble(row) is not None:
            return None
        return self._named(row, session=True), row.secret

    def digest(self, caller: Caller) -> bytes:
        """The digest that a session of this caller is bound to."""
        if caller.who == TOKEN:
            return self._token or _NOBODY
        return (self._admin or _NOBODY) if caller.who == ENVIRONMENT else self._known[caller.key_id].secret

    def signing(self) -> Mapping[str, bytes]:
        """The keys that sign links, by id, the newest last."""
        self.refresh(FRESH)
        return {row.key_id: row.secret for row in self._known.values() if self._signs(row)}

    def signs(self) -> bool:
        """Whether a key to sign links exists. Rereads the rows if none is known."""
        if self._newest_known() is not None:
            return True
        self.refresh(SOON)
        return self._newest_known() is not None

    def newest_signing(self) -> tuple[str, bytes]:
        """The id and the secret of the key that signs new links. Raises LookupError if there is none."""
        self.refresh(FRESH)
        newest = self._newest_known()
        if newest is None:
            raise LookupError(
                "this hub has no key to sign links. Create one with `perdure keys rotate-links`"
            )
        return newest.key_id, newest.secret

    def _newest_known(self) -> KeyRow | None:
        """The newest key that signs links, among the rows read last."""
        newest = self._newest
        if newest is not None and newest.expires_at is None:
            return newest  # it was among the rows read last, and does not expire
        if newest is None or not self._signs(newest):
            self._newest = next(filter(self._signs, reversed(self._known.values())), None)
        return self._newest

    def counts(self, key_id: str) -> bool:
        """Whether the access key with this id is valid."""
        row = self._find(key_id)
        return row is not None and self._trouble(row) is None

    def expiry(self, key_id: str) -> int | None:
        """The expiry of a key, in seconds since 1970; None for never."""
        row = self._known.get(key_id)
        return None if row is None or row.expires_at is None else row.expires_at // 1_000_000

    def used(self, key_id: str) -> int | None:
        """The last recorded use of a key."""
        row = self._known.get(key_id)
        return None if row is None else row.last_used_at

    def _find(self, key_id: str) -> KeyRow | None:
        self.refresh(FRESH)
        if key_id and key_id not in self._known:
            self.refresh(SOON)
        row = self._known.get(key_id)
        return row if row is not None and row.kind == ACCESS else None

    def _caller_of(self, row: KeyRow) -> Caller:
        trouble = self._trouble(row)
        if trouble is not None:
            raise Refused(
                401,
                f"key-{trouble}",
                f"the key {row.key_id} is {trouble}. Ask the administrator for a new one",
                is_attempt=True,
                who=self._named(row).who,
            )
        return self._named(row)

    def _named(self, row: KeyRow, *, session: bool = False) -> Caller:
        return _caller_named(row.name, row.key_id, row.scopes, session)

    def _signs(self, row: KeyRow) -> bool:
        return row.kind == LINK and self._trouble(row) is None

    def _trouble(self, row: KeyRow) -> str | None:
        if row.revoked_at is not None:
            return "revoked"
        return "expired" if row.expires_at is not None and row.expires_at <= self.now() else None


@lru_cache(1_024)
def _caller_named(name: str, key_id: str, scopes: str, session: bool) -> Caller:
    granted = frozenset(scopes.split())
    person = Person(name, roles_in(granted)) if "decide" in granted else None
    return Caller(f"{name} (key {key_id})", granted, key_id, session=session, person=person)


__all__ = ["ENVIRONMENT", "TOKEN", "Keyring"]
