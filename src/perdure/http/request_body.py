"""Reads request bodies with a size limit, as strict JSON."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Final

from starlette.exceptions import HTTPException

from perdure.errors import PayloadError
from perdure.http.plain_request import PlainRequest
from perdure.model import payload

if TYPE_CHECKING:
    from msgspec import Raw
    from starlette.requests import Request


WRAPPED: Final = "perdure.wrapped"
"""The key in a request's scope that marks a body in which a string can contain JSON."""


class LimitedRequest(PlainRequest):
    """A request with a size limit, checked while the body arrives, and with strict JSON.

    The limit applies to forms and to `stream()` too.
    """

    async def stream(self) -> AsyncGenerator[bytes, None]:
        size = 0
        async for chunk in super().stream():
            size += len(chunk)
            if size > payload.MAX_BYTES:
                raise _too_large(payload.MAX_BYTES)
            yield chunk

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            self._body = await read_body(self)
        return self._body

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = payload.decode(payload.check(await self.body()))
        return self._json


async def read_body(request: Request, limit: int = payload.MAX_BYTES) -> bytes:
    """Read the whole body. Raises HTTPException 413 as soon as its announced or actual size exceeds the limit."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(
            415, "compressed bodies are not supported. Send the body without Content-Encoding"
        )
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or len(announced) > 18 or int(announced) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


async def read_payload(request: Request) -> Raw | None:
    """Read the body as a checked payload, None if it is empty. Raises PayloadError unless it is strict JSON."""
    data = await read_body(request)
    if not data.strip():
        return None
    checked = payload.check(data)
    return _unwrapped(checked) if request.scope.get(WRAPPED) else checked


def _unwrapped(body: Raw) -> Raw:
    """The JSON inside a string; any other body unchanged."""
    inside = payload.decode(body)
    if not isinstance(inside, str):
        return body
    try:
        return payload.check(inside.encode())
    except PayloadError:
        return body


def demand_json(request: Request) -> None:
    """Raise PayloadError if the Content-Type is not JSON. A request without a Content-Type passes."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise PayloadError(
            f"the body must be JSON, but its type is {kind[:60]!r}. Send the header 'Content-Type: application/json'"
        )


def _too_large(limit: int) -> HTTPException:
    return HTTPException(
        413,
        f"the body is larger than {limit:,} bytes. Store large data elsewhere and send its location",
        headers={"Connection": "close"},
    )


__all__ = ["WRAPPED", "LimitedRequest", "demand_json", "read_body", "read_payload"]
