"""JSON responses."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.responses import Response

_encode: Final = msgspec.json.Encoder().encode
_CONTENT_TYPE: Final = (b"content-type", b"application/json")


class _JSONResponse(Response):
    """A response with a JSON body. Its headers are known, so Starlette does not search them for what is missing."""

    media_type = "application/json"

    def __init__(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.status_code = status
        self.background = None
        self.body = body
        raw = [(name.lower().encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]
        raw.append((b"content-length", b"%d" % len(body)))
        raw.append(_CONTENT_TYPE)
        self.raw_headers = raw


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response. An encoded body (`msgspec.Raw`) is sent unchanged."""
    return _JSONResponse(_encode(content), status, headers or {})


__all__ = ["json_response"]
