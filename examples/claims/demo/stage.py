"""The hands of the stage: they play stories, break things, kill the server, and count what became of it all.

They belong to the demo's own process. The server that they kill is another one.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import httpx2

from examples.claims.connections import BankAway
from examples.claims.demo.report import Audit
from examples.claims.demo.world import StageWorld
from examples.claims.scenarios import SCENARIOS, Scenario

State = Literal["not run yet", "running", "came true", "did not come true"]
A_ROUND = 2.0  # seconds between two counts


@dataclass
class Run:
    """The last run of a story."""

    story: Scenario
    state: State = "not run yet"
    end: str = ""
    claim_id: str = ""
    seconds: float = 0.0


@dataclass
class Stage:
    """What the stage's page shows, and what its buttons do."""

    world: StageWorld
    count: Callable[[], Awaitable[Audit]]
    runs: list[Run] = field(default_factory=lambda: [Run(story) for story in SCENARIOS])
    found: Audit | None = None
    counted_at: datetime | None = None
    kills: list[float] = field(default_factory=list)
    killed_at: datetime | None = None
    _playing: set[asyncio.Task[None]] = field(default_factory=set)
    _made: int = field(default_factory=lambda: int(time.time()) % 10**6 * 1_000)

    @property
    def is_down(self) -> bool:
        """Whether the server was killed and does not answer yet."""
        return self.killed_at is not None

    @property
    def is_busy(self) -> bool:
        """Whether a story runs."""
        return bool(self._playing)

    @property
    def pid(self) -> int:
        """The server's process."""
        return self.world.server.pid

    def kill(self) -> None:
        """Kill the server. The demo starts it again."""
        self.killed_at = datetime.now(UTC)
        self.world.server.kill()

    def revived(self, seconds: float) -> None:
        """Note that the server is back."""
        self.kills.append(seconds)
        self.killed_at = None

    def play(self, name: str, told: Callable[[Run], None] = lambda run: None) -> None:
        """Begin to play a story, unless it runs; `told` gets it at its end."""
        run = next((run for run in self.runs if run.story.name == name), None)
        if run is not None and run.state != "running":
            run.state, run.end = "running", ""
            task = asyncio.create_task(self._play(run, told))
            self._playing.add(task)
            task.add_done_callback(self._playing.discard)

    async def play_all(self, told: Callable[[Run], None] = lambda run: None) -> None:
        """Play every story, and report each as it ends."""
        for run in self.runs:
            self.play(run.story.name, told)
        await asyncio.gather(*self._playing)

    async def switch(self, service: str, mode: str) -> None:
        """Make a service slow, wrong or absent, or mend it: `services/README.md` has the modes."""
        url = self.world.urls.get(service)
        if url is not None:
            seconds = 8.0 if mode == "slow" else 0.0
            body = {"mode": mode, "seconds": seconds}
            (await self.world.http.put(f"{url}/switch", json=body)).raise_for_status()

    async def modes(self) -> dict[str, str]:
        """How each service is switched."""
        found: dict[str, str] = {}
        for service, url in self.world.urls.items():
            try:
                found[service] = (await self.world.http.get(f"{url}/switch")).json()["mode"]
            except httpx2.HTTPError:
                found[service] = "away"
        return found

    async def verify(self) -> str:
        """What `perdure verify` finds in the hub while the server works."""
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "perdure.cli",
                "verify",
                "--store",
                str(self.world.server.store),
                "--json",
            ),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        output, _ = await process.communicate()
        if process.returncode != 0:
            return "perdure verify found damage, or did not run"
        rows = sum(report["rows"] for report in json.loads(output)["hubs"].values())
        return f"Verified: {rows:,} rows of the hub, none changed"

    async def keep_counting(self) -> None:
        """Count again and again: the numbers that must stay 0."""
        while True:
            with suppress(BankAway):  # then the last count stays, with its time
                self.found = await self.count()
                self.counted_at = datetime.now(UTC)
            await asyncio.sleep(A_ROUND)

    async def close(self) -> None:
        """Stop the stories that still run."""
        for task in self._playing:
            task.cancel()
        await asyncio.gather(*self._playing, return_exceptions=True)

    async def _play(self, run: Run, told: Callable[[Run], None]) -> None:
        self._made += 1
        run.claim_id, began = f"VI-{self._made:09d}", time.monotonic()
        try:
            run.end = await run.story.play(self.world, run.claim_id)
            run.state = "came true"
        except AssertionError as false:
            run.state, run.end = "did not come true", str(false)
        except Exception as error:  # a story that breaks is one that did not come true
            run.state, run.end = "did not come true", f"{type(error).__name__}: {error}"
        run.seconds = time.monotonic() - began
        told(run)
