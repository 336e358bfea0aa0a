"""A campaign: many seeds on several processes, with progress, a table, and a verdict on the run itself."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from simulation.runner import Result, run_seed
from simulation.sometimes import CASES, LOG_CASES, SHARED_CASES, missed

CHUNK = 25
SHOWN = 5  # failures of which the text is kept


@dataclass
class Summary:
    """The summary of a campaign."""

    shared: bool = False  # worlds of several workers
    log: bool = False  # worlds with the hub in a log
    seeds: int = 0
    steps: int = 0
    commits: int = 0
    crashes: int = 0
    histories: int = 0
    events: int = 0
    seconds: float = 0.0
    failures: list[Result] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)  # seeds in which a case came up

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.steps += result.steps
        self.commits += result.commits
        self.crashes += result.crashes
        self.histories += result.histories
        self.events += result.events
        self.met.update(result.met.keys())
        if result.problems:
            self.failures.append(result)

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases that must occur in such worlds."""
        if self.shared:
            return SHARED_CASES
        return (*CASES, *LOG_CASES) if self.log else CASES

    def missed(self) -> list[str]:
        return missed(self.met, self.cases)

    def is_good(self, *, strict: bool) -> bool:
        return not self.failures and not (strict and self.missed())

    @property
    def per_minute(self) -> float:
        return self.seeds / self.seconds * 60 if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """For reliability.json."""
        return {
            "seeds": self.seeds,
            "steps": self.steps,
            "commits": self.commits,
            "crashes": self.crashes,
            "histories": self.histories,
            "events": self.events,
            "seconds": round(self.seconds, 1),
            "seeds_per_minute": round(self.per_minute),
            "violations": len(self.failures),
            "failures": [
                {"seed": r.seed, "code": r.code, "text": r.problems[0][1][:500]}
                for r in self.failures[:SHOWN]
            ],
            "cases": {case: self.met[case] for case in self.cases},
            "cases_missed": self.missed(),
            "commit": git_commit(),
        }


def run(
    seeds: range,
    jobs: int,
    *,
    shared: bool = False,
    log: bool = False,
    stop_at_first: bool = False,
    progress: Callable[[Summary], None] = lambda _: None,
) -> Summary:
    """Run all seeds; `progress` hears of every chunk."""
    summary = Summary(shared, log)
    began = time.monotonic()
    for results in _results(seeds, jobs, shared, log):
        for result in results:
            summary.add(result)
        summary.seconds = time.monotonic() - began
        progress(summary)
        if stop_at_first and summary.failures:
            break
    return summary


def _results(seeds: range, jobs: int, shared: bool, log: bool) -> Iterator[list[Result]]:
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    if jobs == 1:
        yield from (run_chunk(chunk, shared, log) for chunk in chunks)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(run_chunk, chunk, shared, log) for chunk in chunks}
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            for future in waiting:
                future.cancel()


def run_chunk(seeds: Iterable[int], shared: bool = False, log: bool = False) -> list[Result]:
    return [run_seed(seed, shared=shared, log=log) for seed in seeds]


class Progress:
    """One line that is written over; failures stay, as they come."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._told = 0

    def __call__(self, summary: Summary) -> None:
        for result in summary.failures[self._told :]:
            code, text = result.problems[0]
            sys.stderr.write(f"\rseed {result.seed} [{code}] {text.splitlines()[0][:160]}\n")
        self._told = len(summary.failures)
        sys.stderr.write(
            f"\r{summary.seeds:>7}/{self._total} seeds  {summary.per_minute:>6.0f} a minute  "
            f"{summary.commits:>8} commits  {summary.crashes:>7} crashes  {len(summary.failures)} failures "
        )
        sys.stderr.flush()


def table(summary: Summary) -> str:
    """What ran, in rows."""
    rows = [
        ("seeds", summary.seeds),
        ("turns of the loop", summary.steps),
        ("commits", summary.commits),
        ("crashes", summary.crashes),
        ("histories replayed", summary.histories),
        ("events in them", summary.events),
        ("seeds a minute", round(summary.per_minute)),
        ("failures", len(summary.failures)),
    ]
    lines = [f"{name:<52}{value:>12,}" for name, value in rows]
    lines.append("-" * 64)
    lines += [f"{case:<52}{summary.met[case]:>6} seeds" for case in summary.cases]
    for case in summary.missed():
        lines.append(f"never met: {case}")
    return "\n".join(lines)


def git_commit() -> str:
    """The commit this ran on, with a + when files were changed since."""
    here = Path(__file__).parent
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=here,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return "unknown"
    return told.stdout.strip() or "unknown"


__all__ = ["Progress", "Summary", "git_commit", "run", "table"]
