"""What an open list costs the server when a million instances are stored: `python -m benchmarks.open_page`.

The page is asked for again and again, with its counts by status and with counts that cost nothing, in turns. The
goal is at most 1.2 times the CPU time. With `--scan` the counts come from the instances instead of the ring.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from starlette.testclient import TestClient

import perdure as df
from benchmarks.stored import HUB, build
from perdure.engine.client.instance_counts import true_counts
from perdure.http.pages import instance_list
from perdure.model.ring import InstanceCounts
from perdure.store.port import ClientStore

GOAL = 1.2
REQUESTS = 50  # in each turn


def _no_counts(store: ClientStore) -> InstanceCounts:
    return InstanceCounts({"Running": 1}, 0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.open_page", description=__doc__)
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--scan", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build("waiting", given.instances, folder)
        pairs = _measured(folder, given.pairs, scans=given.scan)
    times, without = (min(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    print(
        f"a page with counts: {times:.2f} ms of CPU time, without: {without:.2f} ms; median ratio {ratio:.2f}"
    )
    print(f"goal at most {GOAL}: {'met' if ratio <= GOAL else 'MISSED'}")
    return 0 if ratio <= GOAL else 1


def _measured(folder: Path, pairs: int, *, scans: bool) -> list[tuple[float, float]]:
    app = df.App(HUB)
    server = app.asgi(store=str(folder / "bench.db"), hub=HUB, access="open")
    with TestClient(server, base_url="http://127.0.0.1") as http:
        _milliseconds(http, nothing=False, scans=scans)
        return [
            (_milliseconds(http, nothing=False, scans=scans), _milliseconds(http, nothing=True, scans=scans))
            for _ in range(pairs)
        ]


def _milliseconds(http: TestClient, *, nothing: bool, scans: bool) -> float:
    with ExitStack() as stack:
        if nothing or scans:
            stack.enter_context(
                patch.object(instance_list, "own_counts", _no_counts if nothing else true_counts)
            )
        begun = time.process_time()
        for _ in range(REQUESTS):
            assert http.get("/instances").status_code == 200
        return (time.process_time() - begun) / REQUESTS * 1_000


if __name__ == "__main__":
    raise SystemExit(main())
