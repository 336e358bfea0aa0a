"""The long run: seeds over several processes, with progress, a table and a summary for machines."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from typing import Any

from powercuts.campaign import Tally, run_seed
from powercuts.faults import FAULTS
from powercuts.sweep import Sweep, sweep

EACH = 40  # cuts of one seed


def cut_many(
    cuts: int,
    *,
    jobs: int = 1,
    seed: int = 1,
    careless: bool = False,
    lies: bool = False,
    progress: Callable[[Tally], None] = lambda _: None,
) -> Tally:
    """Make this many cuts, on seeds from `seed` on."""
    total = Tally()
    if jobs <= 1:
        while total.cuts < cuts:
            total.add(run_seed(seed, min(EACH, cuts - total.cuts), careless=careless, lies=lies))
            progress(total)
            seed += 1
        return total
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), quiet) as pool:
        running: set[Future[Tally]] = set()
        asked = 0
        while running or asked < cuts:
            while asked < cuts and len(running) < jobs * 3:
                share = min(EACH, cuts - asked)
                running.add(pool.submit(run_seed, seed, share, careless=careless, lies=lies))
                asked, seed = asked + share, seed + 1
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                total.add(future.result())
                progress(total)
    return total


def fail_everywhere(
    *,
    jobs: int = 1,
    stride: int = 1,
    faults: Sequence[int] = range(len(FAULTS)),
    progress: Callable[[str, Sweep], None] = lambda *_: None,
) -> dict[str, Sweep]:
    """Let the disk fail at every operation of the script, or at each `stride`-th; by the name of the fault."""
    totals = {FAULTS[number].name: Sweep() for number in faults}
    parts = jobs * 8
    shares = [(number, first) for number in faults for first in range(parts)]
    if jobs <= 1:
        for number in faults:
            totals[FAULTS[number].name].add(sweep(number, stride=stride))
            progress(FAULTS[number].name, totals[FAULTS[number].name])
        return totals
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), quiet) as pool:
        tasks = {
            pool.submit(sweep, number, first=1 + first * stride, stride=stride * parts): FAULTS[number].name
            for number, first in shares
        }
        for task in as_completed(tasks):
            totals[tasks[task]].add(task.result())
            progress(tasks[task], totals[tasks[task]])
    return totals


def figures(tally: Tally, seed: int, seconds: float | None = None) -> dict[str, Any]:
    """A tally as plain numbers."""
    found: dict[str, Any] = {
        "first_seed": seed,
        "seeds": tally.seeds,
        "cuts": tally.cuts,
        "cuts_by_phase": dict(sorted(tally.phases.items())),
        "cuts_by_generation": {str(n): count for n, count in sorted(tally.generations.items())},
        "brought_to_rest": tally.went_on,
        "disk_operations": tally.operations,
        "commits": tally.commits,
        "acknowledged": tally.acknowledged,
        "cuts_with_loss": tally.cuts_with_loss,
        "lost_commits": tally.lost_commits,
        "lost_promises": tally.lost_orders,
        "corruptions": tally.corruptions,
        "problems": len(tally.problems),
    }
    if seconds is not None:
        found["seconds"] = round(seconds, 1)
        found["cuts_a_minute"] = round(tally.cuts / max(seconds, 1e-6) * 60)
    return found


def table(found: dict[str, Any]) -> str:
    """The figures, a line each."""
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {count}" for key, count in value.items())
        lines.append(f"  {name.replace('_', ' '):<20} {value}")
    return "\n".join(lines)


class CutProgress:
    """A line on the terminal, twice a second at most."""

    def __init__(self, cuts: int) -> None:
        self._cuts = cuts
        self._began = time.monotonic()
        self._said = 0.0
        self._shown = 0

    def __call__(self, tally: Tally) -> None:
        for problem in tally.problems[self._shown : 20]:
            print(f"\n{problem}", file=sys.stderr)
        self._shown = len(tally.problems)
        now = time.monotonic()
        if now - self._said > 0.5 or tally.cuts >= self._cuts:
            self._said = now
            rate = tally.cuts / (now - self._began) * 60
            print(
                f"\r{tally.cuts:,} of {self._cuts:,} cuts, {tally.seeds:,} seeds, {rate:,.0f} a minute, "
                f"{len(tally.problems)} problems ",
                end="\n" if tally.cuts >= self._cuts else "",
                file=sys.stderr,
                flush=True,
            )


def quiet() -> None:
    """The engine logs each failed commit; here there are thousands."""
    logging.getLogger("perdure").setLevel(logging.CRITICAL + 1)
