"""An application inside a site of FastAPI or Starlette: below a prefix, beside the lifespan of the site."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

import perdure as df
from perdure.http.host import Host
from tests.http.conftest import LOCAL, M, make_app

Site = Any
Build = Callable[[Host, list[str]], Site]


def durable_app() -> df.App:
    app = make_app()

    @app.route("/orders", methods=["POST"], auth="anonymous")
    async def order(request: Request, client: df.Client) -> Any:
        instance_id = await client.start_new("echo", None, await request.json())
        return client.create_check_status_response(request, instance_id)

    return app


def lifespan_of(host: Host, told: list[str]) -> Any:
    """The site's own lifespan, with the host's inside."""

    @asynccontextmanager
    async def lifespan(site: Any) -> AsyncIterator[None]:
        told.append("site begins")
        async with host.lifespan():
            yield
        told.append("site ends")

    return lifespan


def fastapi(host: Host, told: list[str]) -> Site:
    site = FastAPI(lifespan=lifespan_of(host, told))

    def client() -> df.Client:
        return host.client

    @site.post("/buy/{what}")
    async def buy(request: Request, what: str, client: Annotated[df.Client, Depends(client)]) -> Any:
        instance_id = await client.start_new("echo", None, what)
        return client.create_check_status_response(request, instance_id)

    @site.post("/quick")
    async def quick(request: Request, client: Annotated[df.Client, Depends(client)]) -> Any:
        instance_id = await client.start_new("echo", None, "at once")
        return await client.wait_for_completion_or_create_check_status_response(request, instance_id)

    @site.post("/links")
    async def links(request: Request, client: Annotated[df.Client, Depends(client)]) -> dict[str, str]:
        instance_id = await client.start_new("approval")
        payload = client.create_http_management_payload(instance_id, request)
        link = await client.create_event_link(instance_id, "ApproverDecision", request=request)
        return {**payload, "decide": link}

    site.mount("/durable", host)
    return site


def starlette(host: Host, told: list[str]) -> Site:
    async def buy(request: Request) -> Response:
        instance_id = await host.client.start_new("echo", None, request.path_params["what"])
        answer: Response = host.client.create_check_status_response(request, instance_id)
        return answer

    async def quick(request: Request) -> Response:
        instance_id = await host.client.start_new("echo", None, "at once")
        answer: Response = await host.client.wait_for_completion_or_create_check_status_response(
            request, instance_id
        )
        return answer

    async def links(request: Request) -> Response:
        instance_id = await host.client.start_new("approval")
        payload = host.client.create_http_management_payload(instance_id, request)
        link = await host.client.create_event_link(instance_id, "ApproverDecision", request=request)
        return JSONResponse({**payload, "decide": link})

    routes = [
        Route("/buy/{what}", buy, methods=["POST"]),
        Route("/quick", quick, methods=["POST"]),
        Route("/links", links, methods=["POST"]),
        Mount("/durable", host),
    ]
    return Starlette(routes=routes, lifespan=lifespan_of(host, told))


def guarded() -> Host:
    return durable_app().asgi(store="memory:", admin_key="the-administrators-own-long-key")


@pytest.mark.parametrize("build", [fastapi, starlette])
def test_the_site_and_the_application_live_and_end_together(build: Build) -> None:
    told: list[str] = []
    host = guarded()
    with TestClient(build(host, told), base_url=LOCAL) as http:
        assert told == ["site begins"]
        assert http.get("/durable/healthz").json() == {"healthy": True}
        assert host.client.task_hub == "hosts"
    assert told == ["site begins", "site ends"]
    with pytest.raises(df.EngineStopped, match=r"lifespan=host\.lifespan"):
        _ = host.client


@pytest.mark.parametrize("build", [fastapi, starlette])
def test_links_of_a_client_function_have_the_prefix_and_open(build: Build) -> None:
    with TestClient(build(guarded(), []), base_url=LOCAL) as http:
        answer = http.post("/durable/api/orders", json={"n": 1})
        location = answer.headers["location"]

        assert answer.status_code == 202
        assert location.startswith(f"{LOCAL}/durable{M}/instances/")
        assert http.get(f"{location}&wait=60").json()["output"] == {"n": 1}
        assert http.get(location.split("?")[0]).status_code == 401


@pytest.mark.parametrize("build", [fastapi, starlette])
def test_links_of_the_sites_own_routes_lead_into_the_application(build: Build) -> None:
    with TestClient(build(guarded(), []), base_url=LOCAL) as http:
        bought = http.post("/buy/book")
        assert bought.status_code == 202 and bought.headers["retry-after"] == "10"
        assert bought.headers["location"].startswith(f"{LOCAL}/durable{M}/instances/")
        assert http.get(f"{bought.headers['location']}&wait=60").json()["output"] == "book"
        assert http.post("/quick").json() == "at once"

        assert sorted(http.post("/links").json()) == ["decide", "id", "statusQueryGetUri"]  # a stranger
        links = http.post("/links", headers={"x-functions-key": "the-administrators-own-long-key"}).json()
        for name, url in links.items():
            assert name == "id" or url.startswith(f"{LOCAL}/durable/"), name
        assert "Approver decision" in http.get(links["decide"]).text
        event = links["sendEventPostUri"].replace("{eventName}", "ApproverDecision")
        assert http.post(event, json={"approved": True}).status_code == 202
        assert http.get(f"{links['statusQueryGetUri']}&wait=60").json()["output"] == "APPROVED"


@pytest.mark.parametrize("build", [fastapi, starlette])
def test_pages_session_and_description_stay_below_the_prefix(build: Build) -> None:
    key = {"x-functions-key": "the-administrators-own-long-key"}
    with TestClient(build(guarded(), []), base_url=LOCAL, follow_redirects=False) as http:
        asked = http.get("/durable/triggers")
        assert asked.headers["location"] == "/durable/login?next=%2Ftriggers"
        form = http.get(asked.headers["location"])
        csrf = http.cookies["perdure_csrf"]
        posted = {"csrf": csrf, "key": key["x-functions-key"], "next": "/triggers"}
        signed_in = http.post("/durable/login", data=posted)
        page = http.get(signed_in.headers["location"])
        described = http.get("/durable/openapi.json", headers=key).json()

    assert 'action="/durable/login"' in form.text
    assert page.status_code == 200
    assert 'href="/durable/keys"' in page.text and 'href="/keys"' not in page.text
    assert described["servers"] == [{"url": "/durable"}]


WAYS_TO_START = ("awaited", "gathered", "within_a_time", "in_a_task", "in_a_thread", "in_a_pool")


def site_of_starts(host: Host) -> Site:
    """Routes that file an order under an id of the caller's choice, in each way that a site may start one."""
    found = {"on_existing": "return_existing"}

    async def awaited(name: str) -> None:
        await host.client.start_new("approval", name, **found)

    async def gathered(name: str) -> None:
        await asyncio.gather(host.client.start_new("approval", name, **found))

    async def within_a_time(name: str) -> None:
        await asyncio.wait_for(host.client.start_new("approval", name, **found), 60)

    async def in_a_task(name: str) -> None:
        client = host.client

        async def start() -> None:
            with suppress(df.InstanceExists):
                await client.start_new("approval", name, on_existing="reject")

        await asyncio.create_task(start())

    ways = {way.__name__: way for way in (awaited, gathered, within_a_time, in_a_task)}
    site = FastAPI(lifespan=host.lifespan)

    async def blocking() -> df.SyncClient:
        return df.SyncClient(host.client, asyncio.get_running_loop())

    @site.post("/in_a_thread/{name}")
    def in_a_thread(request: Request, name: str, client: Annotated[Any, Depends(blocking)]) -> Any:
        client.start_new("approval", name, **found)
        client.start_new("echo")  # another start takes nothing back
        return client.create_check_status_response(request, name)

    @site.post("/in_a_pool/{name}")
    async def in_a_pool(request: Request, name: str) -> Any:
        client, blocking_client = host.client, await blocking()
        await run_in_threadpool(blocking_client.start_new, "approval", name, **found)
        return client.create_check_status_response(request, name)

    @site.post("/waited/{way}/{name}")
    async def waited(request: Request, way: str, name: str) -> Any:
        await ways[way](name)
        return await host.client.wait_for_completion_or_create_check_status_response(request, name, 1)

    @site.post("/foreign/{way}/{name}")
    async def foreign(way: str, name: str) -> Any:
        await ways[way](name)
        return host.client.create_http_management_payload(name, OfAnotherFramework())

    @site.post("/{way}/{name}")
    async def answered(request: Request, way: str, name: str) -> Any:
        await ways[way](name)
        return host.client.create_check_status_response(request, name)

    site.mount("/durable", host)
    return site


class OfAnotherFramework:
    url = f"{LOCAL}/orders"


@pytest.mark.parametrize("way", WAYS_TO_START)
def test_a_route_of_the_site_hands_a_stranger_nothing_of_an_instance_that_its_start_met(way: str) -> None:
    answers = ["", "/waited", "/foreign"] if way not in ("in_a_thread", "in_a_pool") else [""]
    host = guarded()
    with TestClient(site_of_starts(host), base_url=LOCAL) as http:
        for number, answer in enumerate(answers):
            first = http.post(f"{answer}/{way}/a-{number}")
            assert first.json().keys() == {"id", "statusQueryGetUri"}
            stranger = http.post(f"{answer}/{way}/a-{number}")
            assert stranger.json() == {"id": f"a-{number}"}
            assert "location" not in stranger.headers


async def test_a_program_that_has_asked_for_the_client_hides_nothing_from_later_requests() -> None:
    host = guarded()
    async with host.lifespan():
        assert host.client.task_hub == "hosts"  # every request below inherits the context of this task
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(site_of_starts(host)), base_url=LOCAL
        ) as http:

            async def ask(way: str, name: str) -> set[str]:
                return set((await asyncio.create_task(http.post(f"/{way}/{name}"))).json())

            for way in ("awaited", "gathered"):
                for name in (way, way):
                    told = await ask(way, name)
                assert told == {"id"}
                assert await ask(way, f"{way}-next") == {"id", "statusQueryGetUri"}
                await host.client.terminate(way)
                await host.client.purge_instance_history(way)
                assert await ask(way, way) == {"id", "statusQueryGetUri"}


def test_an_application_inside_an_application_inside_a_site() -> None:
    host = guarded()
    inner = FastAPI()
    router = APIRouter(prefix="/shop")

    @router.post("/buy")
    async def buy(request: Request) -> Any:
        return host.client.create_check_status_response(request, await host.client.start_new("echo"))

    inner.include_router(router)
    inner.mount("/durable", host)

    async def around(request: Request) -> Response:
        answer: Response = host.client.create_check_status_response(
            request, await host.client.start_new("echo")
        )
        return answer

    site = Starlette(
        routes=[Mount("/v1", inner), Mount("/other", routes=[Route("/buy", around, methods=["POST"])])],
        lifespan=host.lifespan,
    )
    with TestClient(site, base_url=LOCAL) as http:
        for path in ("/v1/shop/buy", "/other/buy"):
            location = http.post(path).headers["location"]
            assert location.startswith(f"{LOCAL}/v1/durable{M}/instances/"), path
            assert http.get(location).status_code in (200, 202)


def test_middleware_around_the_mount_and_a_proxy_before_the_site_do_not_hide_it() -> None:
    host = guarded()

    async def link(request: Request) -> Response:
        instance_id = await host.client.start_new("echo")
        payload = host.client.create_http_management_payload(instance_id, request)
        return PlainTextResponse(payload["statusQueryGetUri"])

    site = Starlette(
        routes=[
            Route("/link", link),
            Mount("/durable", host, middleware=[Middleware(GZipMiddleware)]),
        ],
        lifespan=host.lifespan,
    )
    with TestClient(site, base_url=LOCAL, root_path="/behind") as http:
        assert http.get("/link").text.startswith(f"{LOCAL}/behind/durable{M}/instances/")


def test_a_public_url_begins_every_link_wherever_it_is_asked_for() -> None:
    app = durable_app()
    host = app.asgi(store="memory:", access="open", public_url="https://shop.example/durable/")
    with TestClient(fastapi(host, []), base_url=LOCAL) as http:
        for path in ("/buy/book", "/durable/api/orders"):
            location = http.post(path, json={}).headers["location"]
            assert location.startswith(f"https://shop.example/durable{M}/instances/"), path


async def test_mounted_in_fastapi_without_a_lifespan_it_starts_with_the_first_request() -> None:
    import httpx2

    host = guarded()
    site = FastAPI()
    site.mount("/durable", host)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=site), base_url=LOCAL) as http:
        answer = await http.post("/durable/api/orders", json=2)
        assert answer.headers["location"].startswith(f"{LOCAL}/durable{M}/instances/")
    keeper = host._keeper
    assert keeper is not None
    keeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeper
