"""Servers for any test: one a version and run, started when the first test asks for it.

`postgres_url` is a fresh database, and a test that takes it runs once for every version. Tests that stop, restart or
crash a server take `own_postgres`, or make a `Server` of the version they want.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.postgres.servers import NEWEST, VERSIONS, Server, share

Servers = Callable[[int], Server]


@pytest.fixture(scope="session")
def postgres_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """By version, the server that all tests of this run share. Leave it running."""
    base = tmp_path_factory.getbasetemp()
    place = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # the workers' common one
    servers: dict[int, Server] = {}

    def server_of(version: int) -> Server:
        if version not in servers:
            servers[version] = share(version, place)
        return servers[version]

    yield server_of
    for server in servers.values():
        server.end()


@pytest.fixture(params=VERSIONS, ids=lambda version: f"postgres{version}")
def postgres(request: pytest.FixtureRequest, postgres_servers: Servers) -> Server:
    """The shared server, of each version in turn."""
    return postgres_servers(request.param)


@pytest.fixture
def postgres_url(postgres: Server) -> Iterator[str]:
    """A fresh database, of each version in turn."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def newest_url(postgres_servers: Servers) -> Iterator[str]:
    """A fresh database of the newest version, where one version says enough."""
    with postgres_servers(NEWEST).database() as url:
        yield url


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Server]:
    """A server of this module's own, of the newest version: to be restarted, killed, starved."""
    with Server(NEWEST) as server:
        yield server
