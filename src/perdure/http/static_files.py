"""The static files of the pages. Their names contain a hash of the content, so that a browser caches them for a year.

A new release changes the hash and so the URL. The plain names work too, without caching.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

FOLDER: Final = Path(__file__).parent / "static"
YEAR: Final = 365 * 24 * 3600


def _hashed(path: Path) -> str:
    return f"{path.stem}.{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}{path.suffix}"


ADDRESSES: Final = {path.name: _hashed(path) for path in FOLDER.iterdir()}
"""For each file name, the name with the hash, which pages load."""

_PLAIN: Final = {hashed: name for name, hashed in ADDRESSES.items()}


class HashedFiles(StaticFiles):
    """Serves each file under its hashed name and its plain name."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        return super().lookup_path(_PLAIN.get(path, path))

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if path in _PLAIN:
            response.headers["cache-control"] = f"public, max-age={YEAR}, immutable"
        return response


def static_files() -> ASGIApp:
    """The application below `/static`. It compresses files for browsers that accept it."""
    return GZipMiddleware(HashedFiles(directory=FOLDER), minimum_size=500)


__all__ = ["ADDRESSES", "static_files"]
