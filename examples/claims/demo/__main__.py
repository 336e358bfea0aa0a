"""The claims office at work: file two hundred claims, decide most of them, pay, count, and leave the rest to you.

    python -m examples.claims.demo [--fresh] [--claims 200] [--kills 0] [--photos] [--rate 10]

The claims come from the file that CLAIMS_CSV names; without it the demo generates them. The state is in
`claims-demo.db`. A new run continues with it (filing a claim again has no effect), unless --fresh or DEMO_FRESH=1
deletes it first. With DEMO_ONCE=1 the demo plays every story of `scenarios`, prints what became of each, and ends
with exit code 1 if one did not come true or the count finds a fault.
"""

import argparse
import asyncio
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path

import httpx2
import uvicorn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text
from starlette.applications import Starlette

import perdure as df
from examples.claims import connections
from examples.claims.connections import BANK_BOOK, BANK_SWITCH, home, photo_folder
from examples.claims.demo.processes import environment, services, share_secrets
from examples.claims.demo.report import (
    ENDINGS,
    FILING,
    Audit,
    Book,
    audit,
    book_in,
    show,
    standing_of,
    trail_of,
)
from examples.claims.demo.server import Server, ServerFailed, free_port
from examples.claims.demo.stage import Run, Stage
from examples.claims.demo.traffic import FOR_YOU, Desk, Staff, file_claims, statuses
from examples.claims.demo.world import StageWorld, payments_at
from examples.claims.model import Claim
from examples.claims.reconciling import RECONCILIATION
from examples.claims.scenarios import Looks, a_claim
from examples.claims.screens.office import office
from examples.claims.screens.room import Addresses, Room
from examples.claims.services.photos.store import PhotoStore
from examples.claims.source import claims_of, made_up, rows_of
from examples.claims.staff import STAFF

DATABASE = "claims-demo.db"
LATE = slice(10, None, 100)  # the adjusters leave these claims, which are the supervisors' after a second
LEFT = slice(7, None, 20)  # the desk leaves these to you
UNSEEN = slice(5, None, 25)  # these come from the app without a photo, and their customers are asked for one
ODD_PHOTOS: tuple[Looks, ...] = ("seen", "whole")
OF_THE_SERVICES = (
    "bank.db*",
    "photos.db*",
    "post.db*",
)  # a bank that remembers would have paid unknown claims
OFFICE_PORT = 7061
YOU = df.Person("you@insurer.example", ("adjuster", "supervisor"))
FOR_TODAY = timedelta(days=1)
STANDSTILL = 10.0  # seconds without a change until the demo shows the table anyway

console = Console(highlight=False)


class Demo:
    """One run of the demo."""

    def __init__(
        self,
        server: Server,
        client: df.Client,
        staff: Staff,
        claims: Sequence[Claim],
        kills: int,
        your_key: str,
        book: Book | None = None,
        rate: float = 0.0,
    ) -> None:
        self.server = server
        self.client = client
        self.staff = staff
        self.your_key = your_key
        self.book = book or book_in(home() / BANK_BOOK)
        self.rate = rate
        self.stage: Stage | None = None
        self.claims = {claim.claim_id: claim for claim in claims}
        self.kill_after = {len(self.claims) * (n + 1) // (kills + 1) for n in range(kills)}
        self.found: Audit | None = None

    async def run(self) -> Audit:
        """File, decide, pay, count."""
        began, spent, process = time.monotonic(), self.server.cpu_seconds, self.server.pid
        took = await self._process()
        spent = self.server.cpu_seconds - spent
        found = await self.audit()
        found.took[FILING] = took
        console.print(f"\n{len(self.claims):,} claims in {time.monotonic() - began:.1f} s\n", style="bold")
        show(console, found)
        if spent and process == self.server.pid:  # a server that was killed took its count along
            console.print(
                f"\nThe server used {spent / len(self.claims) * 1_000:.1f} ms of CPU time a claim: "
                "engine, HTTP, activities and the desk's requests."
            )
        self._explain(found)
        self.found = found
        return found

    async def revived(self, seconds: float) -> None:
        """Report that the server was killed and is back."""
        console.print(
            f"[bold red]The server was killed[/] and is back after {seconds:.1f} s "
            f"as process {self.server.pid}."
        )
        if self.stage is not None:
            self.stage.revived(seconds)
        if self.found is not None:
            if self.stage is not None and self.stage.is_busy:
                return
            self.found = await self.audit()
            numbers = self.found.numbers
            console.print(f"{numbers['filed']:,} claims filed: {self.found.verdict}.")
            self.invite(self.found)

    def invite(self, found: Audit) -> None:
        """Show a claim that waits for the viewer, and how to break things."""
        console.print()
        large = [one.instance_id for one in found.waiting if self._is_large(one.instance_id)]
        if large:
            claim = large[-1]
            console.print(
                f"[bold]{claim}[/] waits for your decision: Ada has approved it, you are the second pair of eyes."
            )
            body = '{"verdict": "approve", "reason": "All photos match."}'
            _lines(
                ("decide it", f"{self.server.url}/inbox?role=adjuster&token={self.your_key}"),
                ("or here", f"PERDURE_KEY={self.your_key} {_perdure()} tasks complete {claim}.review:0 "
                 f"-i '{body}' --url {self.server.url}"),
                ("or by HTTP", f"curl -X POST -H 'Content-Type: application/json' -d '{body}' "
                 f"'{self.server.url}/runtime/webhooks/durabletask/tasks/{claim}.review:0/complete"
                 f"?code={self.your_key}'"),
                ("see it", f"{self.server.url}/instances/{claim}?token={self.server.token}"),
            )  # fmt: skip
        console.print("\n[bold]Now break it.[/] In another terminal:")
        _lines(
            ("kill it", f"kill -9 {self.server.pid}"),
            ("", "The demo restarts the server and counts again."),
            ("stop the bank", f"touch {home() / BANK_SWITCH}"),
            ("", "Then approve a claim: perdure retries its payment until you remove the file."),
        )
        console.print(
            f"\nAll claims: {self.server.url}/?token={self.server.token}   Ctrl-C ends the demo.\n",
            style="dim",
        )

    def _is_large(self, claim_id: str) -> bool:
        claim = self.claims.get(claim_id)
        return claim is not None and claim.total >= FOR_YOU

    async def _process(self) -> list[float]:
        with Progress(
            TextColumn("{task.description:8}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn(),
            console=console,
        ) as progress:  # fmt: skip
            filed = progress.add_task("filed", total=len(self.claims))
            closed = progress.add_task("closed", total=len(self.claims))

            def advance() -> None:
                progress.advance(filed)
                if progress.tasks[filed].completed in self.kill_after:
                    self.server.kill()

            async with asyncio.TaskGroup() as group:
                filing = group.create_task(
                    file_claims(self.server.url, self.claims.values(), advance, self.rate)
                )
                desk = Desk(self.staff, self.claims, list(self.claims)[LEFT])
                before, since = (0, 0), time.monotonic()
                while time.monotonic() - since < STANDSTILL:
                    answered, left_alone = await desk.work()
                    asked = time.monotonic()
                    now = await self._closed_and_open()
                    progress.update(closed, completed=now[0], total=max(len(self.claims), sum(now)))
                    if filing.done() and now[1] == left_alone:
                        break
                    if answered or now != before:
                        before, since = now, time.monotonic()
                    await asyncio.sleep(max(0.05, 2 * (time.monotonic() - asked)))
            return filing.result()

    async def _closed_and_open(self) -> tuple[int, int]:
        standings = [standing_of(status, trail_of(status)) async for status in statuses(self.client)]
        closed = sum(standing in (*ENDINGS, "failed") for standing in standings)
        return closed, len(standings) - closed - standings.count("with the customer")

    async def audit(self) -> Audit:
        """Count every claim of this run, and those of the stories that have ended."""
        runs = self.stage.runs if self.stage is not None else ()
        told = [run.claim_id for run in runs if run.state in ("came true", "did not come true")]
        return await audit(self.client, [*self.claims, *told], self.book)

    async def leave_photos(self) -> None:
        """File two claims with photos that only a person can judge, and leave them to the viewer."""
        assert self.stage is not None
        for looks in ODD_PHOTOS:
            claim_id = f"VI-{looks}-{int(time.time()) % 10**6}"
            await self.stage.world.file(await a_claim(self.stage.world, claim_id, looks))

    async def tell_stories(self) -> bool:
        """Play every story, and print each with its end; returns whether all came true."""
        assert self.stage is not None
        console.print(f"\n[bold]{len(self.stage.runs)} stories[/]")
        await self.stage.play_all(_tell)
        return all(run.state == "came true" for run in self.stage.runs)

    async def show_counters(self) -> None:
        """Show the numbers in the last line of the terminal, for as long as the demo runs."""
        assert self.stage is not None
        with console.status("") as line:
            while True:
                found = self.stage.found
                if found is not None:
                    numbers = found.numbers
                    line.update(
                        f"[bold]{found.verdict}[/], filed {numbers['filed']:,}, paid {numbers['paid']:,}, "
                        f"waiting {numbers['waiting']:,}. Ctrl-C ends the demo."
                    )
                await asyncio.sleep(1)

    def _explain(self, found: Audit) -> None:
        if found.numbers["in progress"]:
            console.print(
                f"\nSome claims are still in progress: does {home() / BANK_SWITCH} still exist?",
                style="yellow",
            )


async def demonstrate(claims: Sequence[Claim], options: argparse.Namespace) -> int:
    """Start everything, run the demo, and keep the server running; returns the exit code."""
    task = asyncio.current_task()
    assert task is not None
    for ending in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(ending, task.cancel)
    share_secrets()
    port = options.port
    if options.photos:
        claims = await _photographed(claims)
    async with AsyncExitStack() as stack:
        began = time.monotonic()
        urls = await stack.enter_async_context(services(any_port=port > 0))
        listening = stack.enter_context(
            socket.create_server(("127.0.0.1", 0 if port else free_port(OFFICE_PORT)))
        )
        office_url = f"http://localhost:{listening.getsockname()[1]}"
        server = Server(home() / DATABASE, port, environment(urls, office_url))
        await stack.enter_async_context(server)
        client = await stack.enter_async_context(df.connect(server.url, key=server.token))
        await client.start_new("reconcile_nightly", RECONCILIATION, on_existing="return_existing")
        staff = await stack.enter_async_context(staffed(server, client))
        http = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False, timeout=30))
        book = partial(payments_at, urls["bank"]) if "bank" in urls else book_in(home() / BANK_BOOK)
        demo = Demo(
            server, client, staff, claims, options.kills, await key_of(client, YOU), book, options.rate
        )
        people = connections.people()
        stack.callback(people.close)
        demo.stage = Stage(StageWorld(server, client, staff, people, urls, http), demo.audit)
        stack.push_async_callback(demo.stage.close)
        room = Room(
            client, people, connections.links(office_url), PhotoStore(photo_folder()), server.token,
            Addresses(server=server.url, office=office_url, **urls), demo.stage,
        )  # fmt: skip
        await stack.enter_async_context(serving(office(room), listening))
        console.print(
            f"Server: [bold]{server.url}[/], process {server.pid}. Kill it at any time. "
            f"Everything runs after {time.monotonic() - began:.1f} s.\n"
        )
        return await _play(demo, room, once=os.environ.get("DEMO_ONCE") == "1", stories=options.stories)


async def _play(demo: Demo, room: Room, *, once: bool, stories: bool) -> int:
    """File and decide; then play every story and end, or leave the rest to the viewer."""
    assert demo.stage is not None
    async with asyncio.TaskGroup() as group:
        keeper = group.create_task(demo.server.keep(demo.revived))
        found = await demo.run()
        came_true = True
        if once and stories:
            came_true = await demo.tell_stories()
            found = await demo.audit()
        show_addresses(room, demo.your_key)
        if not once:
            await demo.leave_photos()
            demo.invite(found)
            counting = group.create_task(demo.stage.keep_counting())
            await demo.show_counters()
            counting.cancel()
        keeper.cancel()
    console.print(found.verdict)
    return 0 if found.is_clean and came_true else 1


def show_addresses(room: Room, your_key: str) -> None:
    """Where a browser finds the screens and the services."""
    at = room.addresses
    console.print("\n[bold]Screens[/]")
    _lines(
        ("claimant", f"{at.office}/file"),
        ("adjuster", f"{at.server}/inbox?role=adjuster&token={your_key}"),
        ("manager", f"{at.office}/board?key={room.staff_key}"),
        ("stage", f"{at.office}/stage?key={room.staff_key}"),
    )
    console.print("[bold]Services[/]")
    named = (("fraud scoring", at.fraud), ("photos", at.photos), ("bank", at.bank), ("post", at.post))
    _lines(*((label, url or "a stand-in in the server") for label, url in named))


@asynccontextmanager
async def serving(app: Starlette, listening: socket.socket) -> AsyncIterator[None]:
    """Serve the office in this process, which the red button does not kill."""
    server = _Quiet(uvicorn.Config(app, log_level="error", lifespan="off"))
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn sets an attribute
        await asyncio.sleep(0.02)
    try:
        yield
    finally:
        server.should_exit = True
        server.force_exit = True  # pages that follow a claim do not hold up the end
        await task


class _Quiet(uvicorn.Server):
    """A server that leaves the signals to the demo."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def staffed(server: Server, client: df.Client) -> AsyncIterator[Staff]:
    """A client for each adjuster and supervisor, with a key that proves who they are."""
    async with AsyncExitStack() as stack:
        yield {
            person: await stack.enter_async_context(df.connect(server.url, key=await key_of(client, person)))
            for person in STAFF
        }


async def key_of(client: df.Client, person: df.Person) -> str:
    """A new key of a person, with their roles, for a day."""
    scopes = ["decide", *(f"role:{role}" for role in person.roles)]
    return (await client.create_key(person.name, scopes, expires_in=FOR_TODAY)).secret


def main() -> int:
    options = _options()
    claims = _claims(options.claims)
    database = home() / DATABASE
    if options.fresh:
        delete_earlier(database)
    console.print(f"{database} {'exists: this run continues with it' if database.exists() else 'is new'}.")
    code = 1
    try:
        code = asyncio.run(demonstrate(claims, options))
    except* ServerFailed as failed:
        console.print(f"[red]The server has ended.[/] Its last lines:\n{failed.exceptions[0]}")
    except* (KeyboardInterrupt, asyncio.CancelledError):
        console.print("\nStopped. The next run continues from here.")
        code = 0
    return code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.claims.demo", description=__doc__)
    parser.add_argument("--fresh", action="store_true", default=os.environ.get("DEMO_FRESH") == "1")
    parser.add_argument("--claims", type=int, default=200, metavar="N", help="the number of claims, at most")
    parser.add_argument(
        "--port",
        type=int,
        default=0,
        metavar="N",
        help="of the server; otherwise the first free one from 7071 on",
    )
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="kill the server while claims run")
    parser.add_argument(
        "--photos", action="store_true", help="draw a photo for each claim; needs perdure[demo]"
    )
    parser.add_argument(
        "--rate", type=float, default=0.0, metavar="N", help="claims a second; default: as fast as possible"
    )
    parser.add_argument(
        "--stories", action=argparse.BooleanOptionalAction, default=True, help="play them, with DEMO_ONCE=1"
    )
    return parser.parse_args()


async def _photographed(claims: Sequence[Claim]) -> list[Claim]:
    from examples.claims.demo.pictures import one_each  # it needs the extra `demo`

    with Progress(
        TextColumn("{task.description:8}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console,
    ) as progress:  # fmt: skip
        drawn = progress.add_task("drawn", total=len(claims))
        return await one_each(claims, partial(progress.advance, drawn))


def _claims(count: int) -> list[Claim]:
    file = os.environ.get("CLAIMS_CSV")
    try:
        claims = list(islice(claims_of(rows_of(Path(file)) if file else made_up(count)), count))
    except (OSError, ValueError) as error:
        sys.exit(f"CLAIMS_CSV: {error}")
    claims[UNSEEN] = [replace(claim, channel="app") for claim in claims[UNSEEN]]
    claims[LATE] = [replace(claim, decide_within=timedelta(seconds=1)) for claim in claims[LATE]]
    origin = f"claims from {file}" if file else "generated claims (CLAIMS_CSV=file.csv uses real ones)"
    console.print(f"{len(claims):,} {origin}.")
    return claims


def delete_earlier(database: Path) -> None:
    """Remove the database, the other files and the outbox of earlier runs, unless a server uses them.

    The photos stay: their names are digests, so they can be of any run.
    """
    with suppress(FileNotFoundError), open(f"{database}.server") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = json.load(lock)["pid"]
            sys.exit(f"process {pid} still serves {database}. Stop it first: kill {pid}")
    files = (file for pattern in ("claims-*", *OF_THE_SERVICES) for file in home().glob(pattern))
    for file in files:
        file.unlink()
    shutil.rmtree(home() / "outbox", ignore_errors=True)


def _perdure() -> str:
    script = Path(sys.executable).with_name("perdure")
    if not script.exists():
        return f"{sys.executable} -m perdure.cli"
    return str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)


def _tell(run: Run) -> None:
    colour = "green" if run.state == "came true" else "bold red"
    console.print(
        Text.assemble((f"  {run.state:18}", colour), f"{run.story.title}: {run.end} ({run.seconds:.1f} s)"),
        soft_wrap=True,
    )


def _lines(*lines: tuple[str, str]) -> None:
    for label, text in lines:
        console.print(Text.assemble((f"  {label:14}", "dim"), text), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
