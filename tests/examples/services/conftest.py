"""A service in this process, behind a client; its switch is a file in the test's folder."""

from contextlib import asynccontextmanager

import httpx2
import pytest


@asynccontextmanager
async def _serving(app):
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://service") as client,
    ):
        yield client


@pytest.fixture
def serving():
    """`async with serving(make(tmp_path)) as client`."""
    return _serving
