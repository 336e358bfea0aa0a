"""`python -m powercuts`: cut the power many times, and make the disk fail at every operation."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from powercuts.parallel_run import CutProgress, cut_many, fail_everywhere, figures, quiet, table
from powercuts.sweep import Sweep


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m powercuts", description=__doc__)
    parser.add_argument("--cuts", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--normal", action="store_true", help="synchronous=NORMAL: must lose")
    parser.add_argument(
        "--lies", action="store_true", help="a disk whose syncs do nothing: must lose and corrupt"
    )
    parser.add_argument("--no-faults", action="store_true", help="leave the failing disk out")
    parser.add_argument("--stride", type=int, default=1, help="fail at each n-th operation only")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    chosen = parser.parse_args()
    quiet()
    began = time.monotonic()
    tally = cut_many(
        chosen.cuts,
        jobs=chosen.jobs,
        seed=chosen.seed,
        careless=chosen.normal,
        lies=chosen.lies,
        progress=CutProgress(chosen.cuts),
    )
    found = figures(tally, chosen.seed, time.monotonic() - began)
    print(
        "power cuts" + (" at NORMAL" if chosen.normal else "") + (" on a lying disk" if chosen.lies else "")
    )
    print(table(found))
    bad = bool(tally.problems) != (chosen.normal or chosen.lies)
    if not chosen.no_faults:
        bad |= _fail(chosen.jobs, chosen.stride, found)
    if chosen.json:
        with open(chosen.json, "w") as file:
            json.dump(found, file, indent=2)
    return 1 if bad else 0


def _fail(jobs: int, stride: int, found: dict[str, Any]) -> bool:
    """The failing disk; returns whether anything was wrong."""
    began = time.monotonic()
    totals = fail_everywhere(jobs=jobs, stride=stride, progress=_show)
    print(file=sys.stderr)
    print(f"failing disk ({time.monotonic() - began:.0f} s)")
    found["failing_disk"] = {}
    for name, sweep in totals.items():
        found["failing_disk"][name] = sweep.figures()
        print(f"  {name:<22} {sweep.runs:>5} runs, {sweep.cuts:>5} cuts, {len(sweep.problems)} problems")
        for problem in sweep.problems[:5]:
            print(f"      {problem}")
    return any(sweep.problems for sweep in totals.values())


def _show(name: str, so_far: Sweep) -> None:
    print(
        f"\r{name}: {so_far.runs} runs, {len(so_far.problems)} problems ".ljust(78), end="", file=sys.stderr
    )
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
