"""Reading request bodies: never more than the limit in memory, and strict JSON or nothing."""

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
"""The key in a request's scope that says: a string in the body may hold JSON."""


class LimitedRequest(PlainRequest):
    """A request whose body is refused above the limit while it arrives, and whose JSON is strict.

    The limit holds for forms and for `stream()` too.
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
    """The whole body. Raises HTTPException 413 as soon as it is, or is announced to be, above the limit."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "send the body as it is: compressed bodies are not accepted")
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
    """The body as a checked payload, None when it is empty. Raises PayloadError unless it is strict JSON."""
    data = await read_body(request)
    if not data.strip():
        return None
    checked = payload.check(data)
    return _unwrapped(checked) if request.scope.get(WRAPPED) else checked


def _unwrapped(body: Raw) -> Raw:
    """What is inside a string that holds JSON; everything else as it is."""
    inside = payload.decode(body)
    if not isinstance(inside, str):
        return body
    try:
        return payload.check(inside.encode())
    except PayloadError:
        return body


def demand_json(request: Request) -> None:
    """Raise PayloadError for a body that says it is not JSON. A request that says nothing passes."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise PayloadError(
            f"only JSON is accepted here, not {kind[:60]!r}: send the header 'Content-Type: application/json'"
        )


def _too_large(limit: int) -> HTTPException:
    return HTTPException(
        413,
        f"the body is larger than {limit:,} bytes; keep large data elsewhere and send where it is",
        headers={"Connection": "close"},
    )


__all__ = ["WRAPPED", "LimitedRequest", "demand_json", "read_body", "read_payload"]
