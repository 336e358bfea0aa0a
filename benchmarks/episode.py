"""One warm episode, line by line, against the budget of 30 microseconds: `python -m benchmarks.episode`.

An episode here is the result of an activity that lets an orchestrator schedule its next one: W1 and W4 consist
of these. Whole stages (advance, seal, commit, release) are timed on the real hub, loop and store, a batch at a
time; arrive, settle, encode and hash besides on real objects alone. CPU time of this one thread, so waiting
for the disk does not count. Read the lines against each other: the absolute figures are this machine's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

from msgspec import Raw

import perdure as df
from benchmarks.report import table
from perdure.engine.clock import SystemClock, new_salt
from perdure.engine.core.dispatcher import Dispatcher
from perdure.engine.core.envelope import Envelope
from perdure.engine.core.ports import Limits, RandomSource
from perdure.engine.functions.resolved import FunctionTable
from perdure.engine.loop.inbox import SystemWaiter
from perdure.engine.loop.loop import Loop
from perdure.engine.upkeep.crash_file import StrikeFile
from perdure.engine.upkeep.watchdog import Marker
from perdure.model import events as ev
from perdure.model import hash_chain
from perdure.model.messages import ActivityResult, Start
from perdure.replay.decide import Execution
from perdure.replay.environment import Identity
from perdure.replay.settle import Invocation, Outcome, settle
from perdure.store import open_store

BUDGET = {
    "feed": 5,
    "user code": 2,
    "settle": 5,
    "encode": 5,
    "hash": 1,
    "bind": 5,
    "release": 3,
    "slack": 4,
}
EXPLAINED = {
    "feed": "from the message to the resumed code and back: hub, delivery, execution, tasks, watchdog",
    "user code": "the orchestrator's own lines, with nothing behind them",
    "settle": "actions into events and invocations",
    "encode": "events into JSON",
    "hash": "salted digest and link of the chain",
    "bind": "store.commit: the share of one episode in the transaction",
    "release": "after the commit: what may leave, which is warm",
    "slack": "rows of the instance, and all that is on no other line",
}
Stages = dict[str, list[float]]
app = df.App("episode")


@app.activity
async def echo(value: int) -> int:
    return value


@app.orchestrator
async def sequence(context: df.OrchestrationContext, count: int) -> int:
    seen = 0
    for no in range(count):
        await context.call_activity(echo, no)
        seen += 1
    return seen


class Pool:
    """In the place of the activities: it only takes down what was asked for."""

    is_busy = False

    def __init__(self) -> None:
        self.asked: list[Invocation] = []

    def start(self, invocations: list[Invocation], *_: object) -> None:
        self.asked.extend(invocations)

    def forget(self, calls: Iterable[tuple[str, int]]) -> list[Invocation | None]:
        """Their results have been taken up."""
        return []

    def results(self) -> list[Envelope]:
        """What was asked for, done."""
        asked, self.asked = self.asked, []
        return [
            Envelope(
                ActivityResult(
                    instance_id=one.instance_id,
                    execution_id=one.execution_id,
                    task_id=one.task_id,
                    result=Raw(b"1"),
                )
            )
            for one in asked
        ]


class EpisodeBench:
    """A hub with so many orchestrations at their first activity."""

    def __init__(self, folder: Path, batch: int, encryption: df.Encryption | None = None) -> None:
        path = folder / "episode.db"
        self.batch = batch
        self.store = open_store(f"sqlite:///{path}", "episode", encryption)
        self.functions = FunctionTable(app.registry)
        clock = SystemClock()
        self.hub = Dispatcher(
            self.functions,
            RandomSource(new_salt, clock.monotonic),
            limits=Limits(episodes=10 * batch, seconds=60.0),
            running=Marker(StrikeFile(f"{path}.running")),
        )
        self.loop = Loop(self.hub, self.store, clock, SystemWaiter(clock), finished=lambda *_: None)
        self.pool = Pool()
        self.loop.pool = self.pool  # type: ignore[assignment]
        self.loop.open()
        self.loop.turn(
            [
                Envelope(Start(instance_id=f"i{no}", name="sequence", input=Raw(b"1000000"), fresh=True))
                for no in range(batch)
            ]
        )

    def whole(self, stages: Stages) -> None:
        """One turn of the loop."""
        self._timed(stages, "whole", lambda: self.loop.turn(envelopes), envelopes := self.pool.results())

    def staged(self, stages: Stages) -> None:
        """The same turn in its four steps."""
        envelopes = self.pool.results()
        now = self.loop.clock.now()
        self._timed(stages, "advance", lambda: self.hub.advance(envelopes, now))
        batch = self._timed(stages, "seal", self.hub.seal)
        self._timed(stages, "commit", lambda: self.store.commit(batch))
        self._timed(stages, "release", lambda: self.loop._release(batch, 0.0))

    def alone(self, stages: Stages, executions: list[Execution], round_no: int) -> None:
        """arrive, settle, encode and hash, each for itself, on as many executions."""
        arrivals = [ev.TaskCompleted(task_id=_open_task(one), result=Raw(b"1")) for one in executions]
        actions = self._timed(
            stages,
            "arrive",
            lambda: [one.arrive(event) for one, event in zip(executions, arrivals, strict=True)],
        )
        outcomes = [Outcome("i", "e") for _ in executions]
        for outcome, event in zip(outcomes, arrivals, strict=True):
            outcome.events.append(event)

        def settle_all() -> None:
            for asked, outcome in zip(actions, outcomes, strict=True):
                settle(asked, outcome)

        self._timed(stages, "settle", settle_all)
        encoded = self._timed(stages, "encode", lambda: [ev.encode_events(one.events) for one in outcomes])
        salt = b"s" * 16
        head = hash_chain.base_of(salt, 1)

        def hash_all() -> None:
            for events in encoded:
                hash_chain.link(head, 1, round_no, 1_700_000_000_000_000, hash_chain.digest_of(salt, events))

        self._timed(stages, "hash", hash_all)

    def executions(self) -> list[Execution]:
        """Live code outside the hub, at its first activity."""
        entry = self.functions.orchestrator("sequence")
        assert entry is not None
        made = [
            Execution(entry.code, Identity(f"i{no}", "e", None, ""), self.functions.environment)
            for no in range(self.batch)
        ]
        for one in made:
            one.begin_episode(1)
            one.arrive(ev.ExecutionStarted(name="sequence", version="", input=Raw(b"1000000")))
        return made

    def _timed(self, stages: Stages, name: str, work: Callable[[], Any], *_: object) -> Any:
        begun = time.thread_time()
        result = work()
        stages.setdefault(name, []).append((time.thread_time() - begun) / self.batch * 1e6)
        return result


def _open_task(execution: Execution) -> int:
    calls: dict[int, Any] = execution.context._calls
    return min(calls)


class _Nothing:
    """A task that costs as little as a task can."""

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self)


class _NoContext:
    def __init__(self) -> None:
        self._task = _Nothing()

    def call_activity(self, *_: object) -> _Nothing:
        return self._task


def user_code(stages: Stages, batch: int, rounds: int) -> None:
    """The orchestrator's lines with nothing behind them."""
    bodies: list[Any] = [sequence(_NoContext(), 1_000_000) for _ in range(batch)]  # type: ignore[arg-type]
    for body in bodies:
        body.send(None)
    for _ in range(rounds):
        begun = time.thread_time()
        for body in bodies:
            body.send(1)
        stages.setdefault("user code", []).append((time.thread_time() - begun) / batch * 1e6)
    for body in bodies:
        body.close()


def lines(cost: Callable[[str], float]) -> dict[str, float]:
    """The budget's lines from the stages that were timed."""
    found = {name: cost(name) for name in ("user code", "settle", "encode", "hash", "release")}
    found["bind"] = cost("commit")
    found["feed"] = cost("advance") - found["user code"] - found["settle"]
    found["slack"] = cost("whole") - sum(found.values())
    return {name: found[name] for name in BUDGET}


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m benchmarks.episode", description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=200, help="episodes in one batch (200)")
    parser.add_argument("--rounds", type=int, default=100, help="batches of each kind (100)")
    parser.add_argument("--encrypted", action="store_true", help="payloads encrypted at rest")
    chosen = parser.parse_args()
    encryption = df.Encryption({"k1": os.urandom(32)}) if chosen.encrypted else None
    stages: Stages = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = EpisodeBench(Path(folder), chosen.batch, encryption)
        executions = bench.executions()
        for round_no in range(chosen.rounds):  # taking turns, so that a slow moment hits all alike
            bench.staged(stages)
            bench.whole(stages)
            bench.alone(stages, executions, round_no)
        user_code(stages, chosen.batch, chosen.rounds)
        bench.store.close()
    best, usual = lines(lambda name: min(stages[name])), lines(lambda name: statistics.median(stages[name]))
    rows = [[n, str(BUDGET[n]), f"{best[n]:.1f}", f"{usual[n]:.1f}", EXPLAINED[n]] for n in BUDGET]
    total = min(stages["whole"]), statistics.median(stages["whole"])
    rows.append(["whole turn", str(sum(BUDGET.values())), f"{total[0]:.1f}", f"{total[1]:.1f}", ""])
    print(f"microseconds an episode, {chosen.batch} in a batch\n")
    print(table(["", "budget", "best", "median", ""], rows, text=(0, 4)))
    arrive = [f(stages["arrive"]) - f(stages["user code"]) for f in (min, statistics.median)]
    print(
        f"\nof feed, Execution.arrive without the user's lines: best {arrive[0]:.1f}, median {arrive[1]:.1f}"
    )


if __name__ == "__main__":
    main()
