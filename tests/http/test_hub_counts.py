"""The counts of the hub page: exact in a small hub, and at most two percent of the time in a large one."""

import asyncio

import pytest

from perdure.http.hub_counts import FEW, PAUSE, HubCounts


class Hub:
    """A client, its gateway and its store at once: each count takes `duration` seconds of a clock that tests turn."""

    def __init__(self, running: int, duration: float = 0.5) -> None:
        self.running, self.duration = running, duration
        self.now, self.asked = 0.0, 0
        self.gateway = self.store = self
        self.failure: Exception | None = None

    async def read(self, ask):
        self.asked += 1
        await asyncio.sleep(0)
        self.now += self.duration
        if self.failure is not None:
            raise self.failure
        return ask()

    def counts(self):
        return {"Running": self.running, "Completed": 1}

    def count(self, wanted):
        assert wanted.parked
        return 7

    def of_server(self) -> HubCounts:
        return HubCounts(lambda: self.now)


async def test_a_small_hub_is_counted_for_each_request():
    hub = Hub(3)
    counts = hub.of_server()
    first = await counts.of(hub)
    hub.running = 4
    second = await counts.of(hub)

    assert (first.by_status, first.parked, first.total) == ({"Running": 3, "Completed": 1}, 7, 4)
    assert (second.total, hub.asked) == (5, 2)


async def test_a_large_hub_is_counted_again_after_fifty_times_as_long():
    hub = Hub(FEW)
    counts = hub.of_server()
    await counts.of(hub)
    hub.running += 1
    hub.now += PAUSE * hub.duration - 0.1
    early = await counts.of(hub)
    hub.now += 0.2
    later = await counts.of(hub)

    assert (early.total, later.total, hub.asked) == (FEW + 1, FEW + 2, 2)


async def test_requests_share_the_count_of_a_large_hub():
    hub = Hub(FEW)
    counts = hub.of_server()
    await counts.of(hub)
    hub.now += 100

    found = await asyncio.gather(*(counts.of(hub) for _ in range(20)))

    assert (len(set(map(id, found))), hub.asked) == (1, 2)


async def test_a_count_that_fails_is_tried_again():
    hub = Hub(FEW)
    counts = hub.of_server()
    await counts.of(hub)
    hub.now += 100
    hub.failure = OSError("away")
    with pytest.raises(OSError, match="away"):
        await counts.of(hub)
    hub.failure = None

    assert (await counts.of(hub)).total == FEW + 1


async def test_a_hub_that_has_become_small_is_counted_for_each_request_again():
    hub = Hub(FEW)
    counts = hub.of_server()
    await counts.of(hub)
    hub.running, hub.now = 1, 100
    await counts.of(hub)
    hub.running = 2

    assert (await counts.of(hub)).total == 3
