"""JSON responses."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response; a body that is already encoded (`msgspec.Raw`) passes as it is."""
    return Response(msgspec.json.encode(content), status, headers, "application/json")


__all__ = ["json_response"]
