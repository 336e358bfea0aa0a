"""Kills and stops workers that share a PostgreSQL hub, and does the accounts afterwards.

    python -m tests.postgres.killing [--long] [--version 18] [--seed 1] [--json FILE]

Three processes serve the hub (`victim.py`). This one is never killed: it files claims and decides about them through
an engine of its own that accepts only, notes what was acknowledged, and repeats with the same id what was not, as
any client would; now and then one of its own commits is cut off. SIGKILL comes at moments drawn by lot; SIGSTOP
lasts beyond the lease, so that others have taken over when SIGCONT comes. The dead are replaced after a while; one
that serves is always left.
At the end: all that was acknowledged is there and has ended, everything approved is paid, nothing twice, no tally
has counted anything twice or not at all, every recorded result is one that a body gave (the ledger), and the
database's own notes (`evidence.py`) have no commit of an incarnation after it was void.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import perdure as df
from perdure.engine.upkeep.verification import verify
from perdure.errors import EngineStopped, OutcomeUnknown, Overloaded, StoreError
from perdure.store import open_store
from tests.postgres.evidence import SETTINGS, Evidence, Life, Outage
from tests.postgres.proxy import Cut, Proxy, When
from tests.postgres.servers import NEWEST, VERSIONS, Server
from tests.postgres.victim import HEAVY, TALLIES, tally_of

ROOT = Path(__file__).parents[2]
HUB = "victim"
WORKERS = 3
BACKLOG = 40  # claims that have not ended
UNKNOWN = (OutcomeUnknown, EngineStopped, Overloaded, StoreError)  # a client asks again
SETTLE_WITHIN = 90.0  # seconds for everything to end when the killing is over
MESSAGES = r"into \S*(instances|inbox)"  # in a commit of what clients ask for
CUTTING: tuple[When, ...] = ("before", "forwarded", "answered")
SERVING = 0.85  # the share of kills that meet a worker which serves; the others come at any time of its life


@dataclass(frozen=True)
class Plan:
    """How much is done to the workers. Between two deeds lie `gap` seconds on average."""

    kills: int
    pauses: int
    gap: float
    lease: float = 2.0
    grace: float = 5.0  # seconds besides the lease that a takeover may last


SHORTEST = Plan(kills=5, pauses=1, gap=1.0, grace=30.0)  # part of the tests: other programs may hold them up
QUICK = Plan(kills=8, pauses=2, gap=1.2, grace=30.0)
LONG = Plan(kills=50, pauses=10, gap=2.5)


@dataclass
class Account:
    """What came of it all."""

    seed: int = 0
    kills: int = 0
    pauses: int = 0
    cuts: int = 0
    filed: int = 0
    acknowledged: int = 0
    decided: int = 0
    repeated: int = 0
    lost: int = 0
    unfinished: int = 0
    paid: int = 0
    denied: int = 0
    unpaid: int = 0
    paid_twice: int = 0
    miscounted: int = 0  # tallies
    bodies: int = 0
    bodies_repeated: int = 0
    commits: int = 0
    takeovers: int = 0
    stale_transactions: int = 0
    stale_rows: int = 0
    late_recoveries: int = 0
    problems: list[str] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    lease: float = 0.0
    grace: float = 0.0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not (
            self.lost
            or self.unfinished
            or self.unpaid
            or self.paid_twice
            or self.miscounted
            or self.stale_transactions
            or self.late_recoveries
            or self.problems
        )

    def recovery(self, share: float) -> float:
        lengths = sorted(outage.seconds for outage in self.outages) or [0.0]
        return lengths[min(int(share * len(lengths)), len(lengths) - 1)]

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        figures = asdict(self)
        recovery = {f"recovery_{name}": self.recovery(share) for name, share in (("p50", 0.5), ("max", 1.0))}
        return {**figures, **recovery, "ok": self.ok}


class Worker:
    """A place among the workers, and the process that fills it at present."""

    def __init__(self, number: int, url: str, directory: Path, lease: float) -> None:
        self.number = number
        self.lives: list[Life] = []
        self.is_paused = False
        self._has_said = False
        self._url, self._directory, self._lease = url, directory, lease
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and not self.is_paused

    @property
    def serves(self) -> bool:
        """Whether it has said that it does, and nothing was done to it since."""
        if self._process is not None and not self._has_said:
            assert self._process.stdout is not None
            self._has_said = bool(self._process.stdout.read())
        return self.is_alive and self._has_said

    @property
    def is_dead(self) -> bool:
        return self._process is None

    def start(self) -> None:
        name = f"w{self.number}.{len(self.lives) + 1}"
        command = [sys.executable, "-m", "tests.postgres.victim", "--store", self._url, "--name", name]
        command += ["--ledger", str(self._directory / "ledger"), "--lease", str(self._lease)]
        command += ["--pool", HEAVY] if self.number > 1 else []
        with (self._directory / "victims.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._has_said = False
        self.lives.append(Life(name, time.time()))

    def kill(self) -> None:
        assert self._process is not None
        self.lives[-1].died = time.time()
        self._process.kill()
        self._end()

    def pause(self) -> None:
        assert self._process is not None
        self.is_paused = True
        self.lives[-1].pauses.append((time.time(), float("inf")))
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        since, _ = self.lives[-1].pauses[-1]
        self.lives[-1].pauses[-1] = since, time.time()
        self.is_paused = False

    def died_by_itself(self) -> int | None:
        """Its exit code if it has ended though nobody killed it."""
        return self._process.poll() if self._process is not None else None

    def leave(self) -> int:
        """Let it end by itself; returns its exit code."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        code = self._process.wait(30)
        self._end()
        return code

    def _end(self) -> None:
        assert self._process is not None
        self._process.wait(30)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process = None


class Clientele:
    """Files claims, decides about them, and asks again until it is told that it was heard."""

    def __init__(self, client: df.Client, chance: random.Random, account: Account) -> None:
        self.claims: dict[str, dict[str, Any]] = {}
        self.acknowledged: set[str] = set()
        self.decided: set[str] = set()
        self.ended: set[str] = set()
        self.is_open = True
        self._client, self._chance, self._account = client, chance, account
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_busy(self) -> bool:
        return bool(self._tasks)

    async def file(self) -> None:
        """New claims for as long as it is open, never with too many that have not ended."""
        while self.is_open:
            if len(self.claims) - len(self.ended) < BACKLOG:
                task = asyncio.create_task(self._claim(self._new_claim()))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(0.02)

    def _new_claim(self) -> dict[str, Any]:
        number = len(self.claims)
        claim = {
            "id": f"claim-{number}",
            "number": number,
            "amount": self._chance.randrange(1, 1_000),
            "checks": 1 + number % 4,
            "waits": number % 3 == 0,
            "flaky": number % 7 == 0,
        }
        self.claims[claim["id"]] = claim
        self._account.filed += 1
        return claim

    async def _claim(self, claim: dict[str, Any]) -> None:
        name = claim["id"]
        client = self._client
        if not await self._until_heard(
            f"filing {name}",
            lambda: client.start_new("claims", name, claim, operation_id=f"file {name}"),
        ):
            return
        self.acknowledged.add(name)
        if claim["waits"] and await self._until_heard(
            f"deciding {name}",
            lambda: client.raise_event(name, "Decision", approves(claim), event_id=f"decide {name}"),
        ):
            self.decided.add(name)

    async def _until_heard(self, what: str, ask: Callable[[], Awaitable[object]]) -> bool:
        while True:
            try:
                await ask()
                return True
            except UNKNOWN:
                self._account.repeated += 1
                await asyncio.sleep(0.1)
            except df.PerdureError as error:
                self._account.problems.append(f"{what} was answered {type(error).__name__}: {error}")
                return False


class Killing:
    """One run, on an empty database of a server with the settings that evidence needs.

    The client's own engine stands behind a proxy, which cuts one of its commits before each deed.
    """

    def __init__(self, url: str, proxy: Proxy, directory: Path, plan: Plan, seed: int) -> None:
        self.account = Account(seed=seed, lease=plan.lease, grace=plan.grace)
        self._url, self._proxy, self._directory, self._plan = url, proxy, directory, plan
        self._cuts: list[Cut] = []
        self._chance = random.Random(seed)
        self._workers = [Worker(n + 1, url, directory, plan.lease) for n in range(WORKERS)]
        self._app = df.App(HUB)
        self._later: set[asyncio.Task[None]] = set()
        self._decided: set[str] = set()

    async def run(self, progress: Callable[[Account], None] = lambda _: None) -> Account:
        begun = time.monotonic()
        async with self._client():
            pass  # the tables are there
        evidence = Evidence(self._url)
        try:
            evidence.gather()
            async with self._client() as client:
                await self._work(client, evidence, progress)
            self._do_accounts(evidence)
        finally:
            evidence.close()
            for worker in self._workers:
                if not worker.is_dead:
                    worker.kill()
        self.account.seconds = time.monotonic() - begun
        return self.account

    def _client(self) -> Any:
        return self._app.running(store=self._proxy.url(self._url), accept_only=True, lease=self._plan.lease)

    async def _work(self, client: df.Client, evidence: Evidence, progress: Callable[[Account], None]) -> None:
        clientele = Clientele(client, self._chance, self.account)
        filing = asyncio.create_task(clientele.file())
        watching = asyncio.create_task(self._watch(clientele, evidence))
        for worker in self._workers:
            worker.start()
        await self._torment(progress)
        clientele.is_open = False
        await filing
        await self._settle(clientele)
        watching.cancel()
        await self._judge(client, clientele)
        for worker in self._workers:
            if (code := worker.leave()) != 0:
                self.account.problems.append(f"worker {worker.lives[-1].name} ended with {code}")

    async def _watch(self, clientele: Clientele, evidence: Evidence) -> None:
        """Keep the list of claims that have ended, and see that nobody dies of anything else than us."""
        while True:
            clientele.ended = await asyncio.to_thread(evidence.finished, "claim-")
            for worker in self._workers:
                if (code := worker.died_by_itself()) is not None:
                    name = worker.lives[-1].name
                    self.account.problems.append(f"worker {name} died by itself with {code}: see victims.log")
                    worker.kill()
            await asyncio.sleep(0.2)

    async def _torment(self, progress: Callable[[Account], None]) -> None:
        """Kill and pause as planned, in an order drawn by lot."""
        deeds = ["kill"] * self._plan.kills + ["pause"] * self._plan.pauses
        self._chance.shuffle(deeds)
        for deed in deeds:
            await asyncio.sleep(min(self._chance.expovariate(1 / self._plan.gap), 3 * self._plan.gap))
            worker = await self._somebody(serving=deed == "pause" or self._chance.random() < SERVING)
            if worker is None:
                self.account.problems.append("the workers do not come back: see victims.log")
                return
            self._cuts.append(self._proxy.cut_commit(when=self._chance.choice(CUTTING), matching=MESSAGES))
            if deed == "kill":
                worker.kill()
                self.account.kills += 1
                self._after(self._chance.random() * 1.5 * self._plan.lease, worker.start)
            else:
                worker.pause()
                self.account.pauses += 1
                self._after(self._plan.lease * (1.2 + self._chance.random()), worker.resume)
            progress(self.account)

    async def _somebody(self, *, serving: bool) -> Worker | None:
        """A living worker, or one that serves already, as soon as another one serves who can take over."""
        deadline = time.monotonic() + SETTLE_WITHIN
        while not (found := self._dispensable(serving=serving)):
            if time.monotonic() > deadline or self.account.problems:
                return None
            await asyncio.sleep(0.05)
        return self._chance.choice(found)

    def _dispensable(self, *, serving: bool) -> list[Worker]:
        serve = [worker for worker in self._workers if worker.serves]
        candidates = serve if serving else [worker for worker in self._workers if worker.is_alive]
        return [worker for worker in candidates if any(other is not worker for other in serve)]

    def _after(self, seconds: float, do: Callable[[], None]) -> None:
        async def later() -> None:
            await asyncio.sleep(seconds)
            do()

        task = asyncio.create_task(later())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _settle(self, clientele: Clientele) -> None:
        """No more deaths: everything has to come to its end."""
        deadline = time.monotonic() + SETTLE_WITHIN
        while self._later or clientele.is_busy or len(clientele.ended) < len(clientele.claims):
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.1)

    async def _judge(self, client: df.Client, clientele: Clientele) -> None:
        """What clients are told of each claim, and what the tallies say."""
        account = self.account
        account.acknowledged, account.decided = len(clientele.acknowledged), len(clientele.decided)
        totals: Counter[int] = Counter()
        for name, claim in clientele.claims.items():
            found = await client.get_status(name)
            approved = not claim["waits"] or approves(claim)
            if found is None:
                account.lost += name in clientele.acknowledged
            elif found.runtime_status.value != "Completed":
                account.unfinished += 1
                account.problems.append(f"{name} is {found.runtime_status.value}: {found.waiting_for}")
            elif found.output["status"] == "paid":
                account.paid += 1
                totals[claim["number"] % TALLIES] += claim["amount"]
            else:
                account.denied += 1
            if found is not None and found.output and (found.output["status"] == "paid") != approved:
                account.problems.append(f"{name} is {found.output}, approved: {approved}")
        for number in range(TALLIES):
            state = await client.read_entity_state(tally_of(number))
            counted = state.state["total"] if state.exists else 0
            if counted != totals[number]:
                account.miscounted += 1
                account.problems.append(f"tally {number} is {counted}, paid was {totals[number]}")
        self._check_ledger(clientele)
        self._decided = clientele.decided

    def _check_ledger(self, clientele: Clientele) -> None:
        account = self.account
        ended = [line for line in self._ledger() if line["what"] == "ended"]
        keys: dict[str, set[str]] = {}
        for line in ended:
            if line["activity"] == "pay":
                keys.setdefault(line["subject"], set()).add(line["key"])
        for name, claim in clientele.claims.items():
            approved = not claim["waits"] or approves(claim)
            account.paid_twice += len(keys.get(name, ())) > 1  # the gateway charges once for a key
            account.unpaid += approved and name in clientele.acknowledged and not keys.get(name)
            if not approved and keys.get(name):
                account.problems.append(f"{name} was denied, and paid")
        began = Counter(line["key"] for line in self._ledger() if line["what"] == "began")
        account.bodies, account.bodies_repeated = began.total(), began.total() - len(began)

    def _ledger(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self._directory / "ledger").read_text().splitlines()]

    def _do_accounts(self, evidence: Evidence) -> None:
        """What stands in the database, asked without the engine."""
        account = self.account
        stale = evidence.stale()
        account.stale_transactions, account.stale_rows = stale.transactions, stale.rows
        account.cuts = sum(cut.happened.is_set() for cut in self._cuts)
        account.commits, account.takeovers = evidence.commits(), evidence.takeovers()
        account.problems += [f"applied twice: {found}" for found in evidence.twice()]
        if unattributed := evidence.unattributed():
            account.problems.append(f"transactions came from no incarnation: {unattributed}")
        if left := evidence.left_over():
            account.problems.append(f"rows are left over: {left}")
        runs = {(line["key"], line["run"]) for line in self._ledger() if line["what"] == "ended"}
        strange = [one for one in evidence.results() if (one["key"], one["run"]) not in runs]
        if strange:
            account.problems.append(f"{len(strange)} results are nobody's, the first: {strange[0]}")
        raised = set(evidence.raised())
        missing = [name for name in self._decided if f"decide {name}" not in raised]
        if missing:
            account.problems.append(f"{len(missing)} accepted decisions are in no history: {missing[:5]}")
        account.outages = evidence.outages([life for worker in self._workers for life in worker.lives])
        account.late_recoveries = sum(one.seconds > account.lease + account.grace for one in account.outages)
        store = open_store(self._url, HUB)
        account.problems += verify(store).problems
        store.close_reader()


def approves(claim: dict[str, Any]) -> bool:
    return bool(claim["number"] % 4)


def run(version: int, plan: Plan, seed: int, directory: Path) -> Account:
    """One run on a server of its own, with progress on standard error."""
    with Server(version, settings=SETTINGS) as server, server.database() as url, Proxy(server) as proxy:
        return asyncio.run(Killing(url, proxy, directory, plan, seed).run(_tell))


def _tell(so_far: Account) -> None:
    sys.stderr.write(f"\r{so_far.kills} kills, {so_far.pauses} pauses, {so_far.filed} claims ")
    sys.stderr.flush()


_TABLE = (
    ("kills", "workers killed"),
    ("pauses", "workers stopped beyond their lease"),
    ("cuts", "commits of the client cut off"),
    ("filed", "claims filed"),
    ("acknowledged", "  of them acknowledged"),
    ("decided", "decisions acknowledged"),
    ("repeated", "requests repeated with the same id"),
    ("lost", "acknowledged claims lost"),
    ("unfinished", "claims that did not end"),
    ("paid", "claims paid"),
    ("denied", "claims denied"),
    ("unpaid", "approved claims not paid"),
    ("paid_twice", "claims paid twice"),
    ("miscounted", "tallies that are wrong"),
    ("bodies", "activity bodies entered"),
    ("bodies_repeated", "  of them again, after a death or a retry"),
    ("commits", "transactions of workers"),
    ("takeovers", "incarnations voided by others"),
    ("stale_transactions", "transactions of void incarnations"),
    ("stale_rows", "rows of history in them"),
    ("recovery_p50", "seconds until partitions had an owner, median"),
    ("recovery_max", "seconds until partitions had an owner, longest"),
    ("late_recoveries", "  of them beyond the lease and the grace"),
    ("seconds", "seconds in all"),
)


def table(account: Account) -> str:
    figures = account.figures()
    lines = []
    for key, title in _TABLE:
        figure = figures[key]
        lines.append(f"{title:<50}{figure if isinstance(figure, int) else f'{figure:.2f}':>10}")
    late = [str(one) for one in account.outages if one.seconds > account.lease + account.grace]
    return "\n".join([*lines, *late, *account.problems[:20]])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.postgres.killing")
    parser.add_argument("--long", action="store_true", help="50 kills and 10 pauses instead of 8 and 2")
    parser.add_argument("--version", type=int, choices=VERSIONS, default=NEWEST, help="of PostgreSQL")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="perdure-killing-"))
    sys.stderr.write(f"seed {given.seed}, in {directory}\n")
    logging.basicConfig(filename=directory / "client.log", level=logging.INFO)
    account = run(given.version, LONG if given.long else QUICK, given.seed, directory)
    sys.stdout.write(f"\n{table(account)}\n")
    if given.json is not None:
        figures = {"postgres": given.version, **account.figures()}
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if account.ok else 1


if __name__ == "__main__":
    sys.exit(main())
