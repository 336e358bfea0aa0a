"""A guarded application, callers with every kind of key, and a clock that tests can turn."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.testclient import TestClient

import perdure as df
from perdure.http.api.instance_urls import MANAGEMENT as M
from perdure.http.host import Host
from perdure.http.routing import GatedRoute
from tests.http.conftest import LOCAL, make_app

TOKEN = "the-token-of-this-very-start"
ADMIN = "the-administrators-own-long-key"
SCOPES = ("metrics", "read", "decide", "operate", "admin", "function")


def guarded_app() -> df.App:
    """The application of the host tests, with a client function of every kind."""
    app = make_app()

    @app.route("/anyone", auth="anonymous")
    async def for_anyone(client: df.Client) -> str:
        return "anyone"

    @app.route("/callers", methods=["POST"])
    async def for_callers(request: object, client: df.Client) -> object:
        instance_id = await client.start_new("approval", None, "x")
        return client.create_check_status_response(request, instance_id)

    @app.route("/others")
    async def for_others(client: df.Client) -> str:
        return "others"

    @app.route("/admins", auth="admin")
    async def for_admins(client: df.Client) -> str:
        return "admins"

    return app


@dataclass
class Door:
    """A guarded server, and the ways to knock."""

    http: TestClient
    host: Host

    def routes(self) -> list[Any]:
        """What the router serves."""
        serving: Any = self.host._serving
        return list(serving.app.app.routes)

    def rows(self) -> list[Any]:
        return [route.row for route in self.routes() if isinstance(route, GatedRoute)]

    def key(self, *scopes: str, name: str = "tester", expires_in: float | None = None) -> str:
        """A new key's secret."""
        wanted = {"name": name, "scopes": scopes, "expires_in": expires_in}
        made = self.http.post(f"{M}/keys", json=wanted, headers=as_key(ADMIN))
        assert made.status_code == 201, made.text
        secret: str = made.json()["secret"]
        return secret

    def revoke(self, secret: str) -> None:
        gone = self.http.delete(f"{M}/keys/{secret[4:12]}", headers=as_key(ADMIN))
        assert gone.status_code == 200, gone.text

    def start(self, name: str = "approval", instance_id: str = "a-1") -> dict[str, str]:
        """Start an instance; returns the links that its caller gets."""
        made = self.http.post(f"{M}/orchestrators/{name}/{instance_id}", headers=as_key(ADMIN))
        assert made.status_code == 202, made.text
        links: dict[str, str] = made.json()
        return links

    def audit(self, **query: str) -> list[dict[str, Any]]:
        found = self.http.get(f"{M}/audit", params=query, headers=as_key(ADMIN))
        assert found.status_code == 200, found.text
        records: list[dict[str, Any]] = found.json()["records"]
        return records

    def link(self, instance_id: str = "a-1", **wanted: Any) -> str:
        """An event link for ApproverDecision."""
        asked = {"event": "ApproverDecision", **wanted}
        made = self.http.post(f"{M}/instances/{instance_id}/links", json=asked, headers=as_key(ADMIN))
        assert made.status_code == 201, made.text
        url: str = made.json()["url"]
        return url

    @property
    def gate(self) -> Any:
        serving: Any = self.host._serving
        return serving.app.app.state.access


def as_key(key: str) -> dict[str, str]:
    return {"x-functions-key": key}


@pytest.fixture
async def local() -> AsyncIterator[df.Client]:
    """The in-process client of a running application."""
    async with make_app().running(store="memory:") as client:
        yield client


@pytest.fixture
def door() -> Iterator[Door]:
    host = guarded_app().asgi(store="memory:", token=TOKEN, admin_key=ADMIN)
    with TestClient(host, base_url=LOCAL, follow_redirects=False) as http:
        yield Door(http, host)
