"""`/metrics` of several supervised workers: one scrape has all of them, and no counter decreases when one dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import pairwise

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families as families

from tests.postgres.fixtures import Servers
from tests.postgres.servers import NEWEST
from tests.postgres.test_supervision import Running, running

Series = dict[tuple[str, ...], float]


@pytest.fixture(scope="module")
def workers(postgres_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("scraped")
    with postgres_servers(NEWEST).database() as url, running(folder, url, "--workers", "2") as one:
        one.until(lambda: len(one.serving()) == 2)
        yield one


def scraped(workers: Running) -> Series:
    """Every sample of counters and histograms, by name and labels."""
    answer = httpx2.get(f"{workers.address}/metrics", timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in families(answer.text)
        if family.type in ("counter", "histogram")
        for sample in family.samples
    }


def places(series: Series) -> set[str]:
    return {part.rpartition("/")[2] for key in series for part in key if part.startswith("worker=")}


def total(series: Series, name: str) -> float:
    return sum(value for key, value in series.items() if key[0] == name)


def decreased(before: Series, after: Series) -> dict[tuple[str, ...], float]:
    return {key: value for key, value in before.items() if after.get(key, -1.0) < value}


def run(workers: Running, name: str, count: int) -> Series:
    """Run some instances; returns the first scrape that has them."""
    goal = count + total(scraped(workers), "perdure_instance_ended_total")
    ids = [f"{name}-{number}" for number in range(count)]
    for one in ids:
        assert workers.start("work", one, one).status_code == 200
    for one in ids:
        workers.output(one)
    workers.until(lambda: total(scraped(workers), "perdure_instance_ended_total") == goal)
    return scraped(workers)


def test_a_scrape_adds_up_all_workers_and_stays_monotonic_over_the_death_of_one(workers: Running) -> None:
    seen = [run(workers, "before", 6), *(scraped(workers) for _ in range(4))]
    assert all(places(one) == {"1", "2"} for one in seen)  # whichever worker answers
    assert all(total(one, "perdure_instance_started_total") == 6 for one in seen)

    name, pid = next(iter(workers.serving().items()))
    os.kill(pid, signal.SIGKILL)
    workers.until(lambda: f"{name} (pid {pid}) was killed by SIGKILL" in workers.said)
    seen.append(scraped(workers))
    workers.until(lambda: len(workers.serving()) == 2)
    seen.append(run(workers, "after", 2))

    assert [decreased(before, after) for before, after in pairwise(seen)] == [{}] * (len(seen) - 1)
    assert places(seen[-1]) == {"1", "2"}


@pytest.mark.long
def test_workers_that_are_replaced_in_peace_hand_over_their_last_counts(workers: Running) -> None:
    before = run(workers, "calm", 4)
    names = set(workers.serving())
    workers.process.send_signal(signal.SIGHUP)
    workers.until(lambda: len(set(workers.serving()) - names) == 2, 120)
    after = scraped(workers)

    assert decreased(before, after) == {}
    assert total(after, "perdure_instance_ended_total") == total(before, "perdure_instance_ended_total")
