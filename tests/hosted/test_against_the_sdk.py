"""Random programs on perdure's engine and in the SDK's own executor: the same outputs."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from perdure.testing import environment
from tests.hosted.drawing import EVENTS, application
from tests.hosted.oracle import ITS_OWN_FAULT, verdict

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SHORT = range(100)
TOGETHER = 20  # programs in one environment
LONG = range(100, 1_100)


async def held_against_the_sdk(seeds: range) -> Counter[str]:
    """Run the programs of all seeds; how they ended, by name. Fails at the first disagreement."""
    found: Counter[str] = Counter()
    for first in range(seeds.start, seeds.stop, TOGETHER):
        found += await held_together(range(first, first + TOGETHER))
    return found


async def held_together(seeds: range) -> Counter[str]:
    """The same of a few seeds, at once in one environment."""
    found: Counter[str] = Counter()
    chance = random.Random(seeds.start)
    async with environment(application()) as env:
        ids = {seed: await env.client.start_new("program", f"seed-{seed}", seed) for seed in seeds}
        for number in chance.sample(range(1, EVENTS + 1), EVENTS):
            await env.advance(minutes=chance.randint(0, 40))
            for instance_id in ids.values():
                status = await env.client.get_status(instance_id)
                if not status.is_finished:
                    await env.client.raise_event(instance_id, f"e{number}", {"number": number})
        await env.advance(days=2)
        for seed, instance_id in ids.items():
            status = await env.client.get_status(
                instance_id, show_input=True, show_history=True, show_history_output=True
            )
            is_done, output, fault = verdict(status.history, seed, instance_id)
            if ITS_OWN_FAULT in fault:
                found["the SDK's own fault"] += 1
                continue
            assert (is_done, output, fault) == (status.is_finished, status.output, ""), f"seed {seed}"
            found["done" if is_done else "waiting"] += 1
    return found


async def test_programs_agree_with_the_sdks_own_executor() -> None:
    found = await held_against_the_sdk(SHORT)
    assert found["done"] >= 60 and found["the SDK's own fault"] <= 10, found


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_thousand_programs_agree() -> None:
    found = await held_against_the_sdk(LONG)
    assert found["done"] >= 600 and found["the SDK's own fault"] <= 100, found
