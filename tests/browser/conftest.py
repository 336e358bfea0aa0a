"""A served application, and the distribution's browser looking at it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

import perdure as df
from tests.http.conftest import make_app

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=30_000)  # a busy machine takes longer than Playwright's five seconds


@pytest.fixture(scope="module")  # not session: its event loop would go on under the async tests that follow
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


class Site:
    """The application behind a real server, on a thread of its own."""

    def __init__(self, app: df.App, **serving: Any) -> None:
        self.config = uvicorn.Config(
            app.asgi(store="memory:", **(serving or {"access": "open"})),
            port=0,
            log_config=None,
            access_log=False,
        )
        self.server = uvicorn.Server(self.config)
        self.ready = threading.Event()

    @property
    def url(self) -> str:
        port = self.server.servers[0].sockets[0].getsockname()[1]
        return f"http://localhost:{port}"

    @contextmanager
    def served(self) -> Iterator["Site"]:
        thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        thread.start()
        assert self.ready.wait(60)
        yield self
        self.server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), (
            "a page that is still open keeps its stream: ask for `site` before `page`"
        )

    async def _serve(self) -> None:
        self.config.load()
        self.server.lifespan = self.config.lifespan_class(self.config)
        await self.server.startup()
        self.ready.set()
        await self.server.main_loop()
        await self.server.shutdown()


@pytest.fixture
def site() -> Iterator[Site]:
    with Site(make_app()).served() as found:
        yield found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails the test when the console complains, as it does when the policy is violated."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, color_scheme="light")
    found = context.new_page()
    complaints: list[str] = []
    found.on("console", lambda message: complaints.append(message.text))
    found.on("pageerror", lambda error: complaints.append(str(error)))
    found.on(
        "requestfailed",  # what is on its way when its page is left is given up
        lambda request: request.failure == "net::ERR_ABORTED" or complaints.append(f"failed: {request.url}"),
    )
    yield found
    context.close()
    assert not [text for text in complaints if "the server responded with a status of 4" not in text]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Where a picture of the page may be kept."""
    return tmp_path / "page.png"
