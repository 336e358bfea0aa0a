"""Schedules in random lives: faults of the store, restarts, evictions, downtimes, clocks that are set.

A life is drawn from a seed. Whatever happens in it, a tick fires once or is counted as left out, and what its
function starts is started once, though the function itself may run again. The model beside it knows nothing of
orchestrations: it has the ticks of the time that passed, and the policies as sentences.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

import perdure as df
from perdure.errors import OutcomeUnknown
from perdure.model.durations import instant, moment
from perdure.store.memory import MemoryStore
from perdure.testing import environment
from perdure.testing.faults import Fault, FaultPlan, FaultyStore
from perdure.triggers import Schedules
from perdure.triggers.cron import Cron

START = datetime(2026, 3, 28, 12, tzinfo=UTC)  # summer time begins in the night that follows
CRONS = ("0 * * * *", "*/30 * * * *", "30 2 * * *", "0 */3 * * *", "15 */15 * * * *")
ZONES = ("UTC", "Europe/Berlin", "America/New_York")
GRACE = timedelta(minutes=1)
LIVES = 24


@dataclass
class Life:
    """What a seed decides, and what is known of how it went."""

    seed: int
    cron: str
    zone: str
    catch_up: Any
    overlap: Any
    fails: float  # share of runs of the function that fail
    runs: list[df.Tick] = field(default_factory=list)
    latest: datetime = START
    owed: list[int] = field(default_factory=list)  # the last tick of each downtime, for `latest`
    asked: int = 0  # orders to fire now, of which `unknown` may or may not have been taken
    unknown: int = 0
    went_back: bool = False

    @classmethod
    def drawn(cls, seed: int) -> Life:
        chance = random.Random(seed)
        return cls(
            seed,
            chance.choice(CRONS),
            chance.choice(ZONES),
            chance.choice(("latest", "skip", "all")),
            chance.choice(("skip", "queue", "allow")),
            chance.choice((0.0, 0.2, 0.5)),
        )

    @property
    def when(self) -> Cron:
        return Cron(self.cron, self.zone)

    def ticks(self, after: datetime, until: datetime) -> list[int]:
        return self.when.between(instant(after), instant(until), 10_000)

    def app(self) -> df.App:
        app = df.App("lives")
        chance = random.Random(f"{self.seed} fails")
        patient = df.RetryPolicy(first_interval=chance.choice((1, 600, 9_000)), max_attempts=3)

        @app.orchestrator
        async def effect(context: df.OrchestrationContext) -> Any:
            return context.get_input()

        @app.schedule(
            self.cron,
            name="work",
            timezone=self.zone,
            catch_up=self.catch_up,
            overlap=self.overlap,
            retry=patient,
        )
        async def work(tick: df.Tick, client: df.Client) -> None:
            self.runs.append(tick)
            await client.start_new(effect, None, [tick.at, tick.cause])
            if chance.random() < self.fails:
                raise RuntimeError("this attempt fails after what it did")

        return app


class Steady(FaultyStore):
    """A store that fails and works again when it is reopened. Another test varies the length of the outage."""

    def reopen(self) -> Any:
        return self.inner.reopen()


async def lived(life: Life) -> tuple[Any, list[Any], list[Any]]:
    """The schedule's status at the end, its firings, and what they had started."""
    chance = random.Random(f"{life.seed} moves")
    plan, inner = FaultPlan(), MemoryStore("lives")
    now = START
    for _ in range(chance.randint(1, 4)):
        store = Steady(inner, plan)
        plan.faults = {}
        async with environment(life.app(), store=store, start=now) as env:
            await env.settled()
            for _ in range(chance.randint(2, 6)):
                await _happens(chance, env, store, life)
            life.latest = max(life.latest, env.clock.datetime)
        now = _later(chance, life)
    plan.faults = {}
    async with environment(life.app(), store=inner, start=max(now, life.latest)) as env:
        await env.advance(hours=14)
        schedules = Schedules(env.client)
        await schedules.pause("work", "the end")
        life.latest = max(life.latest, env.clock.datetime)
        await env.advance(hours=600)  # what is being tried again, and what waits for it, comes to its end
        status = await schedules.get("work")
        firings = [one async for one in _all(env.client, "BuiltIn::Firing")]
        effects = [one async for one in _all(env.client, "effect")]
    return status, firings, effects


async def _happens(chance: random.Random, env: Any, store: FaultyStore, life: Life) -> None:
    before = env.clock.datetime
    match chance.choice(("quiet", "quiet", "fault", "evict", "restart", "leap", "run")):
        case "fault":
            at = len(store.calls) + chance.randint(1, 30)
            store.plan.faults[at] = chance.choice((Fault.FAIL, Fault.LOSE_ANSWER))
        case "evict":
            await env.evict()
        case "restart":
            store.plan.faults.clear()
            await env.restart()
        case "leap":
            env.clock.move(instant(before + timedelta(minutes=chance.choice((5, 50, 400)))))
        case "run":
            life.asked += 1
            try:
                await Schedules(env.client).run("work")
            except OutcomeUnknown:
                life.unknown += 1
    await env.advance(minutes=chance.choice((3, 45, 130, 500)))


def _later(chance: random.Random, life: Life) -> datetime:
    """When the next process starts: at once, after a downtime, or by a clock that was set back."""
    match chance.choice(("at once", "down", "back")):
        case "down":
            up = life.latest + timedelta(minutes=chance.choice((7, 90, 900)))
            missed = life.ticks(life.latest, up - GRACE)
            if missed and missed[-1] == (life.ticks(life.latest, up) or [0])[-1]:
                life.owed.append(missed[-1])
            life.latest = up
            return up
        case "back":
            life.went_back = True
            return life.latest - timedelta(minutes=chance.choice((2, 100)))
    return life.latest


async def _all(client: df.Client, name: str) -> Any:
    continuation: str | None = None
    while True:
        page = await client.query(name=name, continuation=continuation, show_input=True)
        for one in page.instances:
            yield one
        continuation = page.continuation
        if continuation is None:
            return


@pytest.mark.parametrize("seed", range(LIVES))
async def test_a_tick_fires_once_whatever_happens(seed: int) -> None:
    life = Life.drawn(seed)

    status, firings, effects = await lived(life)

    passed = life.ticks(START, life.latest)
    by_clock = Counter(one.input["at"] for one in firings if one.input.get("cause", "") in ("", "missed"))
    assert set(by_clock.values()) <= {1}, "one firing a tick"
    assert set(by_clock) <= set(passed), "and none that the clock has not reached"
    assert all(one.runtime_status in ("Completed", "Failed") for one in firings), "each came to an end"
    started = Counter(map(tuple, (one.output for one in effects)))
    assert len(effects) == len(firings) and sum(started.values()) == len(firings), (
        "what it starts, it starts once"
    )
    assert status is not None and status.waiting == 0
    assert status.fired == len(firings)
    manual = sum(one.input.get("cause") == "manual" for one in firings)
    assert life.asked - life.unknown <= manual <= life.asked
    assert status.fired - manual + status.skipped == len(passed), "each tick has fired, or is counted"
    if (life.catch_up, life.overlap) == ("all", "allow"):
        assert sorted(by_clock) == passed
    if life.catch_up == "latest":
        assert set(life.owed) <= set(by_clock), "the last one that was missed is made up for"
    if life.catch_up == "skip":
        assert not [one for one in firings if one.input.get("cause") == "missed"]
    if life.overlap != "allow" and not life.went_back:  # or instants would tell nothing
        ended = sorted(firings, key=lambda one: (one.created_time, one.completed_time))
        for one, following in pairwise(ended):
            assert one.completed_time <= following.created_time, "never two at a time"


def test_the_lives_are_not_all_alike() -> None:
    lives = [Life.drawn(seed) for seed in range(LIVES)]

    assert {life.catch_up for life in lives} == {"latest", "skip", "all"}
    assert {life.overlap for life in lives} == {"skip", "queue", "allow"}
    assert {life.cron for life in lives} == set(CRONS)
    assert moment(lives[0].ticks(START, START + timedelta(days=3))[0]) > START
