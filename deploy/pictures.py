"""Pictures for README and documentation, taken from the claims demo by a headless Chromium.

    python deploy/pictures.py [folder]      (make screenshots)

The script runs the demo in a temporary folder, with its seeded claims and its own server, and writes one PNG for
each colour scheme: of an instance's page, of the overview, the list of instances and the inbox on a desktop and on a
phone, and of the office's stage with a claimant's page. Run it again when the pages change. Times and ages in the
pictures differ at each run.
"""

import asyncio
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
CLAIMS = 120
WIDTH, HEIGHT = 1120, 500
SCHEMES = ("light", "dark")


async def main(folder: Path) -> None:
    """File the claims, stop the bank, approve the last claim, and photograph its page."""
    from playwright.async_api import async_playwright

    import perdure as df
    from examples.claims.connections import BANK_SWITCH, home
    from examples.claims.demo.__main__ import DATABASE, YOU, Demo, key_of, staffed
    from examples.claims.demo.server import Server
    from examples.claims.model import Ruling
    from examples.claims.source import claims_of, made_up

    claims = list(claims_of(made_up(CLAIMS)))
    async with Server(home() / DATABASE) as server, df.connect(server.url, key=server.token) as client:
        your_key = await key_of(client, YOU)
        async with staffed(server, client) as staff:
            found = await Demo(server, client, staff, claims, kills=0, your_key=your_key).run()
        (home() / BANK_SWITCH).touch()  # the bank is away: the timeline shows attempts and pauses
        claim = found.waiting[-1].instance_id
        async with df.connect(server.url, key=your_key) as you:
            ruling = Ruling(verdict="approve", reason="All photos match.")
            await you.complete_task(f"{claim}.review:0", YOU, ruling)
        await _until_attempt(client, f"{claim}.payment", 4)
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for scheme in SCHEMES:
                context = await browser.new_context(
                    viewport={"width": WIDTH, "height": HEIGHT},
                    color_scheme=scheme,  # type: ignore[arg-type]
                )
                page = await context.new_page()
                await page.goto(f"{server.url}/instances/{claim}.payment?token={server.token}")
                await page.screenshot(path=folder / f"instance-{scheme}.png")
                await context.close()
                await _hub(browser, server.url, server.token, scheme, folder)
                await _inbox(browser, server.url, your_key, found.waiting[0].instance_id, scheme, folder)
            await browser.close()


async def _hub(browser: Any, url: str, token: str, scheme: str, folder: Path) -> None:
    """The overview and the list of instances, as an operator sees them on a desktop and on a phone."""
    for name, (width, height) in (("desktop", (1280, 860)), ("phone", (390, 844))):
        context = await browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        page = await context.new_page()
        await page.goto(f"{url}/?token={token}")
        _few_colours(await page.screenshot(), folder / f"overview-{name}-{scheme}.png")
        await page.goto(f"{url}/instances")
        _few_colours(await page.screenshot(), folder / f"instances-{name}-{scheme}.png")
        await context.close()


def _few_colours(shot: bytes, path: Path) -> None:
    """A smaller file of a page, which has few colours."""
    from PIL import Image

    Image.open(io.BytesIO(shot)).convert("RGB").quantize(96).save(path, optimize=True)


async def _inbox(browser: Any, url: str, key: str, claim: str, scheme: str, folder: Path) -> None:
    """The inbox with a task open, as an adjuster sees it on a desktop and on a phone."""
    for name, (width, height) in (("desktop", (1280, 860)), ("phone", (390, 844))):
        context = await browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        page = await context.new_page()
        await page.goto(f"{url}/login")
        await page.fill("input[name=key]", key)
        await page.press("input[name=key]", "Enter")
        await page.wait_for_url(f"{url}/inbox")
        await page.goto(f"{url}/inbox/{claim}.review:0")
        await page.screenshot(path=folder / f"inbox-{name}-{scheme}.png")
        await context.close()


async def photograph_office(folder: Path) -> None:
    """Run the demo with its services, play every story, and photograph the stage and a claimant's page."""
    from PIL import Image
    from playwright.async_api import async_playwright

    command = [sys.executable, "-m", "examples.claims.demo", "--claims", str(CLAIMS)]
    settings = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    demo = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=settings)
    try:
        stage = await _address(demo, "stage")
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for scheme in SCHEMES:
                desk = await browser.new_page(viewport={"width": 1280, "height": 1180}, color_scheme=scheme)  # type: ignore[arg-type]
                await desk.goto(stage)
                if scheme == SCHEMES[0]:
                    await desk.get_by_role("button", name="Run all").click()
                    await desk.wait_for_selector("li.case.run")
                    await desk.wait_for_selector("li.case.run", state="detached", timeout=120_000)
                link = await desk.get_attribute('li:has-text("Asked for more") a[href^="/claim"]', "href")
                phone = await browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)  # type: ignore[arg-type]
                await phone.goto(stage.partition("/stage")[0] + str(link))
                shots = [await desk.screenshot(), await phone.screenshot()]
                wide, narrow = (Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots)
                whole = Image.new("RGB", (wide.width + 40 + 546, wide.height), (208, 204, 198))
                whole.paste(wide, (0, 0))
                whole.paste(narrow.resize((546, wide.height), Image.Resampling.LANCZOS), (wide.width + 40, 0))
                whole.thumbnail((1240, 1240), Image.Resampling.LANCZOS)
                whole.quantize(160).save(folder / f"office-{scheme}.png", optimize=True)
            await browser.close()
    finally:
        demo.terminate()
        await demo.wait()


async def _address(demo: asyncio.subprocess.Process, screen: str) -> str:
    """The address of a screen, as the demo prints it."""
    assert demo.stdout is not None
    async for line in demo.stdout:
        name, _, address = line.decode().strip().partition(" ")
        if name == screen:
            return address.strip()
    raise RuntimeError(f"the demo has ended without an address of {screen}")


async def _until_attempt(client: Any, instance_id: str, attempt: int) -> None:
    """Wait until the activity of an instance is about to be tried for the given time."""
    async for status in client.watch(instance_id):
        if any(retry.attempt >= attempt for retry in status.waiting.retries):
            return


if __name__ == "__main__":
    sys.path.insert(0, os.fspath(ROOT))
    target = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "docs" / "assets"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # the demo's files go here, and errors in the pictures name them without a folder
        os.environ.pop("CLAIMS_HOME", None)
        asyncio.run(main(target))
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        asyncio.run(photograph_office(target))
