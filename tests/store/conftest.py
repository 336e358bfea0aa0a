"""Places in real PostgreSQL servers: one database a version and run, and for each test a hub of its own in it."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from perdure.model.encryption import Cipher
from perdure.store.postgres.store import PostgresStore
from tests.postgres.fixtures import Servers
from tests.postgres.servers import NEWEST, VERSIONS, Server


@dataclass(frozen=True)
class Place:
    """A database. `store` gives another door to a hub of it, a hub of this test's own if none is named."""

    url: str
    server: Server
    hub: str

    def store(self, hub: str = "", cipher: Cipher | None = None) -> PostgresStore:
        return PostgresStore(self.url, hub or self.hub, cipher)

    def another(self) -> "Place":
        """The same database, with another hub."""
        return Place(self.url, self.server, fresh_hub())


def fresh_hub() -> str:
    return f"claims-{secrets.token_hex(6)}"


@pytest.fixture(scope="session")
def postgres_places(postgres_servers: Servers) -> Iterator[Callable[[int], Place]]:
    urls: dict[int, str] = {}
    with ExitStack() as databases:

        def place_of(version: int) -> Place:
            server = postgres_servers(version)
            if version not in urls:
                urls[version] = databases.enter_context(server.database())
            return Place(urls[version], server, fresh_hub())

        yield place_of


@pytest.fixture(params=VERSIONS, ids=lambda version: f"postgres{version}")
def place(request: pytest.FixtureRequest, postgres_places: Callable[[int], Place]) -> Place:
    """In the server of each version in turn."""
    return postgres_places(request.param)


@pytest.fixture
def newest_place(postgres_places: Callable[[int], Place]) -> Place:
    """Where one version says enough."""
    return postgres_places(NEWEST)
