"""Applications in packages, several of them in one process, and --reload as developers use it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import perdure as df
from perdure.cli.app_loader import SourceError, load_app, watched_folder
from perdure.errors import StoreInUse
from tests.cli.test_run import address_of, folder, kill_with_its_children  # noqa: F401

APP = """
import perdure as df

from .billing import billing

app = df.App("packaged")
app.register_functions(billing)
"""
BILLING = """
import perdure as df

billing = df.Blueprint(prefix="billing-", path="/billing")
RATE = {rate}

@billing.activity
async def price(amount: int) -> int:
    return amount * RATE

@billing.orchestrator
async def settle(context: df.OrchestrationContext, amount: int) -> int:
    await context.wait_for_external_event("go")
    return await context.call_activity(price, amount)

@billing.route("/rate", methods=["GET"], auth="anonymous")
async def rate() -> str:
    return str(RATE)
"""


def package(where: Path, module: str = "app", *, rate: int = 2, text: str = APP) -> Path:
    made = where / "claims"
    made.mkdir()
    (made / "__init__.py").write_text("")
    (made / f"{module}.py").write_text(text)
    (made / "billing.py").write_text(BILLING.format(rate=rate))
    return made


@pytest.mark.parametrize(
    "target",
    [
        "claims",
        "claims.app",
        "claims.app:app",
        "claims/app.py",
        "claims/app.py:app",
        "claims/../claims/app.py",
    ],
)
def test_an_application_in_a_package_is_found_and_imports_its_siblings(folder: Path, target: str) -> None:  # noqa: F811
    package(folder)
    app = load_app(target)
    assert app.name == "packaged"
    assert list(app.registry.orchestrators) == ["billing-settle"]
    assert watched_folder(target) == folder
    assert sys.modules["claims.app"].__dict__["app"] is app


@pytest.mark.parametrize("module", ["main", "application", "function_app", "__init__"])
def test_a_package_is_looked_through_where_applications_usually_are(folder: Path, module: str) -> None:  # noqa: F811
    package(folder, module)
    assert load_app("claims").name == "packaged"


@pytest.mark.parametrize(
    ("target", "text", "said"),
    [
        ("claims", "", "the package claims has no perdure.App, neither in its __init__.py nor in app, main"),
        ("claims", APP + "other = df.App('b')", "claims.app has several applications (app, other)"),
        ("claims.app:billing", APP, "is a Blueprint"),
        ("claims", "from . import nowhere", "nowhere"),
        ("claims/app.py", "from .. import app", "beyond top-level package"),
        ("claims.nothing", APP, "there is no module 'claims.nothing'"),
    ],
)
def test_what_a_package_lacks_is_said_clearly(folder: Path, target: str, text: str, said: str) -> None:  # noqa: F811
    package(folder, text=text)
    with pytest.raises(SourceError) as refused:
        load_app(target)
    assert said in str(refused.value)


def until(condition, seconds: float = 20.0):
    """What a condition gives once it gives something; a real server needs real time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except httpx2.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("it did not come true")


@pytest.fixture
def reloading(folder: Path) -> Iterator[tuple[Path, subprocess.Popen[str], str]]:  # noqa: F811
    package(folder)
    environment = {**os.environ, "PYTHONPATH": os.fspath(Path(df.__file__).parents[1]), "COLUMNS": "200"}
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "perdure.cli", "run", "claims", "--port", "0", "--reload", "--access", "open"],
        cwd=folder, env={**environment, "PYTHONDONTWRITEBYTECODE": "1"}, stderr=subprocess.PIPE, text=True,
        process_group=0,
    )  # fmt: skip
    try:
        yield folder, process, address_of(process)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            kill_with_its_children(process)
            process.stderr.close()  # type: ignore[union-attr]


def test_with_reload_instances_go_on_in_the_new_code_and_a_mistake_in_between_is_survived(reloading) -> None:
    """A module of the package changes, not the file that was named; in between it cannot even be imported."""
    place, process, address = reloading
    management = "/runtime/webhooks/durabletask"
    started = httpx2.post(
        f"{address}{management}/orchestrators/billing-settle/s-1", json=21, trust_env=False, timeout=60
    )
    assert started.status_code == 202
    assert httpx2.get(f"{address}/api/billing/rate", trust_env=False, timeout=60).text == "2"

    (place / "claims" / "billing.py").write_text("def broken(:")
    for line in process.stderr:
        if "SyntaxError" in line:
            break
    (place / "claims" / "billing.py").write_text(BILLING.format(rate=3))
    address = address_of(process)
    assert httpx2.get(f"{address}/api/billing/rate", trust_env=False, timeout=60).text == "3"
    raised = httpx2.post(
        f"{address}{management}/instances/s-1/raiseEvent/go", json=None, trust_env=False, timeout=60
    )
    assert raised.status_code == 202
    status = until(
        lambda: (
            (got := httpx2.get(f"{address}{management}/instances/s-1", trust_env=False, timeout=60).json())[
                "runtimeStatus"
            ]
            == "Completed"
            and got
        )
    )
    assert status["output"] == 63


# ------------------------------------------------------------------------------- several in one process


def shop(name: str, greeting: str) -> df.App:
    app = df.App(name)

    @app.activity
    async def say(who: str) -> str:
        return f"{greeting} {who}"

    @app.orchestrator
    async def greet(context: df.OrchestrationContext, who: str) -> str:
        return await context.call_activity(say, who)

    @app.route("/hello", methods=["GET"], auth="anonymous")
    async def hello() -> str:
        return greeting

    return app


async def test_two_applications_run_at_once_on_two_stores(tmp_path: Path) -> None:
    one, two = shop("one", "hello"), shop("two", "ahoy")
    async with (
        one.running(f"sqlite:///{tmp_path}/one.db") as here,
        two.running(f"sqlite:///{tmp_path}/two.db") as there,
    ):
        ids = await asyncio.gather(
            *(client.start_new("greet", f"same-{n}", "Ada") for client in (here, there) for n in range(20))
        )
        answers = [
            (await client.wait_for_completion(instance_id, timeout=60)).output
            for client, mine in ((here, ids[:20]), (there, ids[20:]))
            for instance_id in mine
        ]
    assert answers == ["hello Ada"] * 20 + ["ahoy Ada"] * 20


async def test_one_leaves_and_the_other_goes_on(tmp_path: Path) -> None:
    one, two = shop("one", "hello"), shop("two", "ahoy")
    async with two.running(f"sqlite:///{tmp_path}/two.db") as there:
        async with one.running(f"sqlite:///{tmp_path}/one.db") as here:
            await here.wait_for_completion(await here.start_new("greet", None, "Ada"), timeout=60)
        started = await there.start_new("greet", None, "Bob")
        assert (await there.wait_for_completion(started, timeout=60)).output == "ahoy Bob"


async def test_two_hubs_take_turns_in_one_file_and_do_not_see_each_other(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/both.db"
    one, two = shop("one", "hello"), shop("two", "ahoy")
    async with one.running(store) as here:
        await here.wait_for_completion(await here.start_new("greet", "same", "Ada"), timeout=60)
        with pytest.raises(StoreInUse):
            async with two.running(store):
                pass
    async with two.running(store) as there:
        assert await there.get_status("same") is None
        await there.wait_for_completion(await there.start_new("greet", "same", "Bob"), timeout=60)
    async with one.running(store) as here:
        assert (await here.get_status("same")).output == "hello Ada"


async def test_two_applications_are_mounted_at_two_paths(tmp_path: Path) -> None:
    hosts = {
        name: shop(name, greeting).asgi(store=f"sqlite:///{tmp_path}/{name}.db", access="open")
        for name, greeting in (("one", "hello"), ("two", "ahoy"))
    }

    @asynccontextmanager
    async def lifespans(_):
        async with AsyncExitStack() as stack:
            for host in hosts.values():
                await stack.enter_async_context(host.lifespan())
            yield

    site = Starlette(routes=[Mount(f"/{name}", host) for name, host in hosts.items()], lifespan=lifespans)
    async with lifespans(site):
        transport = httpx2.ASGITransport(app=site)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:7071") as http:
            for name, greeting in (("one", "hello"), ("two", "ahoy")):
                assert (await http.get(f"/{name}/api/hello")).text == greeting
                begun = await http.post(
                    f"/{name}/runtime/webhooks/durabletask/orchestrators/greet/same?timeout=10", json="Ada"
                )
                assert begun.json() == f"{greeting} Ada"
                waiting = await http.post(
                    f"/{name}/runtime/webhooks/durabletask/orchestrators/greet", json="Bob"
                )
                assert waiting.headers["location"].startswith(f"http://localhost:7071/{name}/runtime/")
