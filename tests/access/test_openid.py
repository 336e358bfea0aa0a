"""Staff sign in with their accounts at an OpenID provider, and decide under that name.

The provider runs in the tests. The application around perdure keeps the session, as any web application does.
"""

import warnings
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

import perdure as df
from perdure.http.api.instance_urls import MANAGEMENT as M
from tests.access.conftest import ADMIN, TOKEN, as_key
from tests.access.test_tasks import ADA, BEN, desk_app

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the provider and of its libraries, which are used by tests only
    import oidc_provider_mock
    from authlib.integrations.starlette_client import OAuth


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """The address of an OpenID provider."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with oidc_provider_mock.run_server_in_thread() as server:
            yield f"http://localhost:{server.server_port}"


def who_is_signed_in(request: Any) -> df.Identity | None:
    user = request.session.get("user")
    return df.Identity(user["email"], tuple(user["groups"])) if user else None


def insurer(provider: str) -> Starlette:
    """The insurer's web application: it signs its staff in, and mounts perdure."""
    oauth = OAuth()
    oauth.register(
        "staff",
        client_id="perdure-tests",
        client_secret="a-secret-of-the-tests",
        server_metadata_url=f"{provider}/.well-known/openid-configuration",
        client_kwargs={"scope": "openid email"},
    )
    app = desk_app()
    app.registry.identify = who_is_signed_in
    desk = app.asgi(store="memory:", token=TOKEN, admin_key=ADMIN, allowed_hosts=["insurer.example"])

    async def sign_in(request: Request) -> Response:
        answer: Response = await oauth.staff.authorize_redirect(request, str(request.url_for("signed_in")))
        return answer

    async def signed_in(request: Request) -> Response:
        told = (await oauth.staff.authorize_access_token(request))["userinfo"]
        request.session["user"] = {"email": told["email"], "groups": told["groups"]}
        return RedirectResponse("/desk/inbox")

    async def sign_out(request: Request) -> Response:
        request.session.clear()
        return Response("signed out")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> Any:
        async with desk.lifespan():
            yield

    return Starlette(
        routes=[
            Route("/sign-in", sign_in),
            Route("/signed-in", signed_in, name="signed_in"),
            Route("/sign-out", sign_out),
            Mount("/desk", desk),
        ],
        middleware=[Middleware(SessionMiddleware, secret_key="a-key-of-the-tests")],
        lifespan=lifespan,
    )


def sign_in(browser: TestClient, provider: str, person: str, *groups: str) -> None:
    """Walk through the provider's page as a person does."""
    httpx2.put(
        f"{provider}/users/{person}", json={"email": person, "groups": groups}, trust_env=False
    ).raise_for_status()
    leads_to = browser.get("/sign-in").headers["location"]
    assert leads_to.startswith(provider)
    agreed = httpx2.post(leads_to, data={"sub": person}, trust_env=False)
    back = browser.get(agreed.headers["location"])
    assert (back.status_code, back.headers["location"]) == (307, "/desk/inbox"), back.text


def browser_of(site: Starlette) -> TestClient:
    return TestClient(site, base_url="http://insurer.example", follow_redirects=False)


@pytest.mark.filterwarnings("ignore")  # of the provider's own code, which runs in this process
def test_staff_decide_under_the_name_of_their_account(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "localhost")
    site = insurer(provider)
    with browser_of(site) as ada:
        ben = browser_of(site)
        admin = as_key(ADMIN)
        ada.post(f"/desk{M}/orchestrators/review/r-1", headers=admin)
        assert ada.get("/desk/inbox").status_code in (303, 401), "without an account the inbox is closed"

        sign_in(ada, provider, ADA, "adjuster")
        sign_in(ben, provider, BEN, "adjuster")
        page = ada.get("/desk/inbox/r-1:0")
        assert (ADA in page.text, "Pay claim 7?" in page.text) == (True, True)
        for browser, approve in ((ada, "true"), (ben, "false")):
            browser.get("/desk/inbox/r-1:0")
            form = {"csrf": browser.cookies["perdure_csrf"], "field.approve": approve, "decided_by": "eve"}
            sent = browser.post("/desk/inbox/r-1:0/complete", data=form)
            assert sent.status_code == 303, sent.text

        status = ada.get(f"/desk{M}/instances/r-1?wait=30&showHistory=true", headers=admin).json()
        assert status["output"] == [[True, False], [ADA, BEN]]
        rows = ada.get(f"/desk{M}/audit?operation=complete_task", headers=admin).json()["records"]
        assert [row["who"] for row in rows] == [f"{BEN} (signed in)", f"{ADA} (signed in)"]

        ada.get("/sign-out")
        assert ada.get(f"/desk{M}/tasks").status_code == 401, "the application has signed the person out"


@pytest.mark.filterwarnings("ignore")
def test_an_account_without_the_role_sees_and_decides_nothing(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "localhost")
    with browser_of(insurer(provider)) as eve:
        eve.post(f"/desk{M}/orchestrators/review/r-1", headers=as_key(ADMIN))
        sign_in(eve, provider, "eve@example.org", "cleaning")
        assert eve.get(f"/desk{M}/tasks").json() == []
        sent = eve.post(f"/desk{M}/tasks/r-1:0/complete", json={"approve": True})
        assert (sent.status_code, sent.json()["code"]) == (403, "task-refused")
        assert eve.get(f"/desk{M}/instances/r-1").status_code == 403
