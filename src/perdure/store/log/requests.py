"""Requests to a storage account over one connection, by hand: a client library takes ten times as long."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from perdure.errors import StoreUnusable
from perdure.store.log.port import Unknown

if TYPE_CHECKING:
    from perdure.store.log.account import Sign

VERSION: Final = "2020-12-06"
BUSY: Final = (408, 429, 500, 502, 503, 504)
_REFUSED: Final = (401, 403)
_WHY: Final = {
    "AuthenticationFailed": "the account key or the signature is wrong, or the signature has run out",
    "AuthorizationFailure": "the account key or the signature is wrong, or a firewall of the account does not let "
    "this machine in",
    "AuthorizationPermissionMismatch": "the identity lacks the roles Storage Table Data Contributor and Storage Blob "
    "Data Contributor, or the signature lacks a permission",
}


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def date(self) -> float:
        """The service's time of the answer, in seconds."""
        return parsedate_to_datetime(self.headers["date"]).timestamp()


class Requests:
    """One connection to one endpoint, from any thread, one request at a time."""

    def __init__(self, endpoint: str, sign: Sign, *, timeout: float) -> None:
        self.endpoint = endpoint
        self._sign, self._timeout = sign, timeout
        self._host = urlsplit(endpoint).netloc
        self._lock = threading.RLock()
        self._connection: http.client.HTTPConnection | None = None

    def ask(
        self, verb: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request, without retries. Raises Unknown, and StoreUnusable if the account refuses the caller."""
        url = f"{self.endpoint}/{path}"
        sent = {
            "x-ms-date": formatdate(usegmt=True),
            "x-ms-version": VERSION,
            "Content-Length": str(len(body)),
            **(headers or {}),
        }
        query = self._sign(verb, url, sent)
        if query:
            url += ("&" if "?" in url else "?") + query
        with self._lock:
            answer = self._exchange(verb, url, body, sent)
        return self._judged(answer)

    def _exchange(self, verb: str, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection = self._connection or self._connect()
        try:
            connection.request(verb, target, body or None, headers)
            got = connection.getresponse()
            answer = Answer(
                got.status, {key.lower(): value for key, value in got.headers.items()}, got.read()
            )
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unknown(f"{self._host}: {type(error).__name__} {error}") from error
        except BaseException:
            self.close()  # half a request is under way
            raise
        if got.will_close:
            self.close()
        return answer

    def _connect(self) -> http.client.HTTPConnection:
        if self.endpoint.startswith("https:"):
            context = ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(self._host, timeout=self._timeout, context=context)
        else:
            self._connection = http.client.HTTPConnection(self._host, timeout=self._timeout)
        return self._connection

    def _judged(self, answer: Answer) -> Answer:
        if answer.status in BUSY:
            raise Unknown(f"{self._host} answered {answer.status} {said(answer)}", retry_after(answer))
        if answer.status in _REFUSED:
            code = said(answer)
            why = _WHY.get(code, "; or ".join(_WHY.values()))
            raise StoreUnusable(f"{self._host} refuses the request ({answer.status} {code}): {why}")
        return answer

    def unexpected(self, answer: Answer, what: str) -> StoreUnusable:
        return StoreUnusable(f"{self._host} answered {answer.status} to {what}: {said(answer)}")

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def retry_after(answer: Answer) -> float:
    """How many seconds the service asks to wait: its header is a number or a date."""
    after = answer.headers.get("retry-after", "0").strip()
    if after.isdigit():
        return float(after)
    try:
        return max(0.0, parsedate_to_datetime(after).timestamp() - answer.date)
    except (KeyError, TypeError, ValueError):
        return 0.0


def said(answer: Answer) -> str:
    """The code of an error, and what else is short enough to show."""
    code = answer.headers.get("x-ms-error-code", "")
    return code or answer.body[:200].decode("utf-8", "replace").replace("\n", " ").strip()


__all__ = ["BUSY", "Answer", "Requests", "retry_after", "said"]
