"""The long run: seeds over several processes, with progress, a table and a summary for machines."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any

from powercuts.campaign import Tally, run_seed

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
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
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


def summary(cuts: int = 1_000, *, jobs: int = 2, seed: int = 1) -> dict[str, Any]:
    """Run, and say what came of it in numbers that JSON can carry. `biting` is what NORMAL lost."""
    began = time.monotonic()
    tally = cut_many(cuts, jobs=jobs, seed=seed)
    seconds = time.monotonic() - began
    careless = cut_many(min(cuts, 300), jobs=jobs, seed=seed, careless=True)
    return {**figures(tally, seed, seconds), "biting": figures(careless, seed)}


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


class Progress:
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
