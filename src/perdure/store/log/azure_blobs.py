"""Snapshots and large bodies of a hub: the blobs of a container."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote
from xml.etree import ElementTree

from perdure.store.log.port import Missing

if TYPE_CHECKING:
    from perdure.store.log.requests import Answer, Requests


class AzureBlobs:
    """A `Blobs` in a container."""

    def __init__(self, requests: Requests, container: str) -> None:
        self._requests, self._container = requests, container

    def create(self) -> None:
        answer = self._requests.ask("PUT", f"{self._container}?restype=container")
        self._demand(answer, (201, 409))

    def put(self, name: str, content: bytes) -> None:
        kind = {"x-ms-blob-type": "BlockBlob", "Content-Type": "application/octet-stream"}
        self._demand(self._requests.ask("PUT", f"{self._container}/{name}", content, kind), (201,))

    def get(self, name: str) -> bytes:
        answer = self._requests.ask("GET", f"{self._container}/{name}")
        if answer.status == 404:
            raise Missing(name)
        self._demand(answer, (200,))
        return answer.body

    def names(self, prefix: str) -> list[str]:
        found: list[str] = []
        marker = ""
        while True:
            more = f"&marker={quote(marker, safe='')}" if marker else ""
            path = f"{self._container}?restype=container&comp=list&prefix={quote(prefix, safe='')}{more}"
            answer = self._requests.ask("GET", path)
            self._demand(answer, (200,))
            listing = ElementTree.fromstring(answer.body.lstrip(b"\xef\xbb\xbf"))
            found += [name.text or "" for name in listing.iterfind("Blobs/Blob/Name")]
            marker = listing.findtext("NextMarker") or ""
            if not marker:
                return sorted(found)

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            self._demand(self._requests.ask("DELETE", f"{self._container}/{name}"), (202, 404))

    def close(self) -> None:
        self._requests.close()

    def _demand(self, answer: Answer, wanted: tuple[int, ...]) -> None:
        if answer.status not in wanted:
            raise self._requests.unexpected(answer, f"a request for the container {self._container}")


__all__ = ["AzureBlobs"]
