"""Kills a process again and again while it works, and does the accounts afterwards.

The parent is never killed. It files claims and decides about them through the victim's standard input, notes
what was acknowledged, and repeats with the same ids what was not, as any client would. SIGKILL comes at a random
moment: while the victim starts, while it recovers, in the middle of a commit or between two.
At the end: every acknowledged claim is there and has ended, every approved one is paid, none twice, every
recorded result was seen by the witness, and the product's own verifier finds nothing.
"""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import perdure
from perdure.engine.upkeep.verification import verify
from perdure.store import open_store

ROOT = Path(__file__).parents[2]
WINDOW = 40  # requests on their way at a time
BACKLOG = 120  # claims that have not ended: with more of them every life would be spent on recovery


@dataclass
class Account:
    """What came of it all."""

    kills: int = 0
    killed_before_ready: int = 0
    filed: int = 0
    acknowledged: int = 0
    repeated: int = 0
    lost: int = 0
    unfinished: int = 0
    paid: int = 0
    denied: int = 0
    unpaid: int = 0
    paid_twice: int = 0
    paid_and_denied: int = 0
    bodies: int = 0
    bodies_repeated: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    recoveries: list[float] = field(default_factory=list, repr=False)  # seconds from spawn to ready

    @property
    def ok(self) -> bool:
        return not (
            self.lost
            or self.unfinished
            or self.unpaid
            or self.paid_twice
            or self.paid_and_denied
            or self.problems
        )

    def recovery(self, share: float) -> float:
        times = sorted(self.recoveries) or [0.0]
        return times[min(int(share * len(times)), len(times) - 1)]

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        found = asdict(self)
        del found["recoveries"]
        return {**found, "ready_p50": self.recovery(0.5), "ready_p99": self.recovery(0.99), "ok": self.ok}


class Victim:
    """One life."""

    def __init__(self, directory: Path, store: str) -> None:
        self.born = time.monotonic()
        sources = str(Path(perdure.__file__).parents[1])
        environment = {**os.environ, "PYTHONPATH": sources, "VICTIM_STORE": store}
        with (directory / "victim.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "tests/crash/victim.py"), str(directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        self.replies: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.is_ready = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith(b"\n"):  # the last one may be torn
                self.replies.put(json.loads(line))
        self.replies.put(None)

    def send(self, request: dict[str, Any]) -> bool:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except (BrokenPipeError, OSError):
            return False
        return True

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        self._close()

    def leave(self) -> int:
        """Let it end by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(30)
        self._reader.join()
        self._close()
        return code

    def _close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass


class Killer:
    """Files, decides, kills, repeats."""

    def __init__(
        self, directory: Path, seed: int, *, store: str = "", between: Callable[[], object] = lambda: None
    ) -> None:
        """`store` is the hub's, by default a file in the directory; `between` is called after each kill."""
        self.directory = directory
        self.store = store or f"sqlite:///{directory}/hub.db"
        self._between = between
        self.chance = random.Random(seed)
        self.account = Account()
        self.claims: dict[str, dict[str, Any]] = {}
        self.acknowledged: set[str] = set()
        self._due: dict[str, dict[str, None]] = {"file": {}, "decide": {}}  # asked, or to be asked
        self._running: dict[str, None] = {}
        self._asked_about: list[str] | None = None
        self._open: dict[int, tuple[str, str]] = {}  # request number -> what, claim
        self._numbers = 0
        self._asked: set[tuple[str, str]] = set()

    def run(self, kills: int, progress: Callable[[Account], None] = lambda _: None) -> Account:
        """Kill so many times, then let it finish and do the accounts."""
        begun = time.monotonic()
        while self.account.kills < kills:
            self._life(self._lifetime())
            self.account.kills += 1
            self._between()
            self.account.seconds = time.monotonic() - begun
            progress(self.account)
        self._last_life()
        self._do_accounts()
        self.account.seconds = time.monotonic() - begun
        return self.account

    def _lifetime(self) -> tuple[float, float]:
        """Seconds from its birth, or (if those are endless) from its first sign of life."""
        if self.chance.random() < 0.15:
            return self.chance.random() * 1.2, 0.0
        return 60.0, self.chance.expovariate(1 / 0.3)

    def _life(self, lifetime: tuple[float, float]) -> None:
        victim = self._victim()
        end = victim.born + lifetime[0]
        while (left := end - time.monotonic()) > 0:
            was_ready = victim.is_ready
            if not self._listen(victim, min(left, 0.005)):
                raise AssertionError(f"the victim died by itself: see {self.directory}/victim.log")
            if victim.is_ready and not was_ready:
                end = min(end, time.monotonic() + (lifetime[1] or lifetime[0]))
            if victim.is_ready:
                self._ask(victim, new=True)
        self.account.killed_before_ready += not victim.is_ready
        victim.kill()
        while (reply := victim.replies.get()) is not None:  # what it had said before it died, it had said
            self._hear(victim, reply)

    def _victim(self) -> Victim:
        self._open.clear()
        self._asked_about = None
        return Victim(self.directory, self.store)

    def _listen(self, victim: Victim, patience: float) -> bool:
        """Take what the victim says; returns whether it lives."""
        try:
            reply = victim.replies.get(timeout=max(patience, 0.0))
            while True:
                if reply is None:
                    return False
                self._hear(victim, reply)
                reply = victim.replies.get_nowait()
        except queue.Empty:
            return True

    def _hear(self, victim: Victim, reply: dict[str, Any]) -> None:
        if "ready" in reply:
            victim.is_ready = True
            self.account.recoveries.append(time.monotonic() - victim.born)
            return
        if reply["n"] == 0:
            self._note_outcomes(reply["ok"])
            return
        what, claim = self._open.pop(reply["n"])
        if reply.get("error") in ("OutcomeUnknown", "EngineStopped"):
            return
        if "error" in reply:
            self.account.problems.append(f"{what} {claim} was answered {reply['error']}")
        del self._due[what][claim]
        if what == "file":
            self.acknowledged.add(claim)
            self._running[claim] = None
            if self.claims[claim]["waits"]:
                self._due["decide"][claim] = None

    def _ask(self, victim: Victim, *, new: bool) -> None:
        """Keep requests on their way: what was not acknowledged again, then decisions, then new claims."""
        on_the_way = set(self._open.values())
        for what in ("file", "decide"):
            for claim in list(islice(self._due[what], WINDOW)):
                if len(self._open) >= WINDOW:
                    return
                if (what, claim) not in on_the_way:
                    self._send(victim, what, claim)
        if self._asked_about is None and self._running:
            self._asked_about = list(self._running)
            victim.send({"n": 0, "do": "outcome", "ids": self._asked_about})
        while new and len(self._open) < WINDOW // 2 and len(self._running) < BACKLOG:
            name = f"claim-{len(self.claims)}"
            number = len(self.claims)
            amount, waits, flaky = self.chance.randrange(1, 1_000), number % 3 == 0, number % 7 == 0
            self.claims[name] = {"id": name, "amount": amount, "waits": waits, "flaky": flaky}
            self.account.filed += 1
            self._due["file"][name] = None
            self._send(victim, "file", name)

    def _note_outcomes(self, outcomes: list[Any]) -> None:
        asked, self._asked_about = self._asked_about or [], None
        for claim, found in zip(asked, outcomes, strict=True):
            if found is not None and found[0] == "Completed":
                self._running.pop(claim, None)

    def _send(self, victim: Victim, what: str, claim: str) -> None:
        self._numbers += 1
        request = {"n": self._numbers, "do": what, "id": claim, "claim": self.claims[claim]}
        request["approved"] = approves(claim)
        self._open[self._numbers] = (what, claim)
        self.account.repeated += (what, claim) in self._asked
        self._asked.add((what, claim))
        victim.send(request)

    def _last_life(self) -> None:
        """No more kills: everything has to come to its end."""
        victim = self._victim()
        deadline = time.monotonic() + 60 + len(self.claims) / 50
        while time.monotonic() < deadline and (not victim.is_ready or any(self._due.values())):
            assert self._listen(victim, 0.02), "the victim died by itself"
            if victim.is_ready:
                self._ask(victim, new=False)
        while self._running and time.monotonic() < deadline:
            assert self._listen(victim, 0.05), "the victim died by itself"
            self._ask(victim, new=False)
        for start in range(0, len(self.claims), 500):
            self._judge(self._outcomes(victim, list(self.claims)[start : start + 500]))
        if victim.leave() != 0:
            self.account.problems.append("the victim did not end in order")

    def _outcomes(self, victim: Victim, ids: list[str]) -> dict[str, Any]:
        victim.send({"n": -1, "do": "outcome", "ids": ids})
        while True:
            reply = victim.replies.get(timeout=30)
            assert reply is not None, "the victim died by itself"
            if reply["n"] == -1:
                return dict(zip(ids, reply["ok"], strict=True))
            self._hear(victim, reply)

    def _judge(self, outcomes: dict[str, Any]) -> None:
        account = self.account
        for claim, found in outcomes.items():
            if found is None:
                account.lost += claim in self.acknowledged
            elif found[0] != "Completed":
                account.unfinished += 1
                account.problems.append(f"{claim} is {found}")
            elif found[1]["status"] == "paid":
                account.paid += 1
            else:
                account.denied += 1

    def _do_accounts(self) -> None:
        account = self.account
        account.acknowledged = len(self.acknowledged)
        with closing(sqlite3.connect(self.directory / "ledger.db")) as ledger:
            rows = Counter(claim for (claim,) in ledger.execute("select claim from paid"))
        for claim, facts in self.claims.items():
            approved = not facts["waits"] or approves(claim)
            account.paid_twice += rows[claim] > 1
            account.unpaid += approved and claim in self.acknowledged and not rows[claim]
            account.paid_and_denied += not approved and rows[claim] > 0
        bodies = Counter(line.rsplit(" ", 1)[0] for line in self._witness())
        account.bodies = sum(bodies.values())
        account.bodies_repeated = account.bodies - len(bodies)
        store = open_store(self.store, "victim")
        account.problems.extend(verify(store).problems)
        left = store.counts()
        if set(left) - {"Completed"}:
            account.problems.append(f"instances left: {left}")
        store.close_reader()

    def _witness(self) -> list[str]:
        return (self.directory / "witness.log").read_text().splitlines()


def approves(claim: str) -> bool:
    return int(claim.rpartition("-")[2]) % 4 != 0
