"""Random programs on perdure's engine and in the SDK's own executor, generation by generation: the same outputs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from perdure.engine.client.client import Client
from perdure.hosts.azure_functions.bridge import bridged
from perdure.hosts.azure_functions.protocol import by_protocol
from perdure.model.instances import OrchestrationStatus
from perdure.testing import environment
from tests.hosted.drawing import EVENTS, Make, application
from tests.hosted.oracle import ITS_OWN_FAULT, Verdict, verdict

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SHORT = range(100)
FEW = range(40)
TOGETHER = 20  # programs in one environment
LONG = range(100, 1_100)


async def held_against_the_sdk(seeds: range, make: Make) -> Counter[str]:
    """Run the programs of all seeds; how their generations ended. Fails at the first disagreement."""
    found: Counter[str] = Counter()
    for some in together(seeds):
        async with played(some, make) as client:
            found += Counter([way for seed in some for way in await compared(client, seed)])
    return found


def together(seeds: range) -> Iterator[range]:
    """The seeds whose programs run at once in one environment."""
    for first in range(seeds.start, seeds.stop, TOGETHER):
        yield range(first, min(first + TOGETHER, seeds.stop))


@asynccontextmanager
async def played(seeds: range, make: Make) -> AsyncIterator[Client]:
    """The programs of a few seeds, at their end. The engine forgets them now and then."""
    chance = random.Random(seeds.start)
    async with environment(application(make)) as env:
        for seed in seeds:
            await env.client.start_new("program", f"seed-{seed}", [seed, 1, 0])
        for number in chance.sample(range(1, EVENTS + 1), 2 * EVENTS, counts=[2] * EVENTS):
            await env.advance(minutes=chance.randint(0, 20))
            if chance.random() < 0.3:
                await env.evict()
            for seed in seeds:
                status = await env.client.get_status(f"seed-{seed}")
                if status is not None and not status.is_finished:
                    await env.client.raise_event(f"seed-{seed}", f"e{number}", [number, f"{env.now:%H:%M}"])
        await env.advance(days=2)
        yield env.client


async def seen(client: Client, seed: int, execution: int | None = None) -> OrchestrationStatus:
    options = {"show_input": True, "show_history": True, "show_history_output": True}
    status = await client.get_status(f"seed-{seed}", **options, execution=execution)
    assert status is not None
    return status


async def compared(client: Client, seed: int) -> list[str]:
    """How each generation of a program has ended, which is what the SDK says of its history."""
    last = await seen(client, seed)
    ways = []
    for execution, following in pairwise([*last.executions, None]):
        status = last if following is None else await seen(client, seed, execution)
        history = status.history or []
        told = verdict(history, status.instance_id)
        if told.is_unclear or ITS_OWN_FAULT in told.fault:
            return [*ways, "the SDK's own fault"]
        if following is not None:
            after = (await seen(client, seed, following)).history or []
            expected, way = Verdict(True, next_input=after[0]["input"]), "continued"
        elif status.failure is not None:
            expected, way = Verdict(True, fault=status.failure.message), "failed"
        else:
            expected = Verdict(status.is_finished, status.output)
            way = "done" if status.is_finished else "waiting"
        assert told == expected, f"seed {seed}, execution {execution}"
        ways.append(way)
    return ways


@pytest.mark.parametrize("make", [bridged, by_protocol])
async def test_programs_agree_with_the_sdks_own_executor(make: Make) -> None:
    found = await held_against_the_sdk(SHORT if make is bridged else FEW, make)
    assert found["done"] > found["continued"] > found["failed"] > 0 and not found["waiting"], found
    assert found["the SDK's own fault"] < found["done"] / 10, found


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("make", [bridged, by_protocol])
async def test_a_thousand_programs_agree(make: Make) -> None:
    found = await held_against_the_sdk(LONG, make)
    assert found["done"] > found["continued"] > found["failed"] > 0 and not found["waiting"], found
    assert found["the SDK's own fault"] < found["done"] / 10, found
