"""The command: many seeds, or one that is to be understood."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from simulation import campaign
from simulation.runner import plan_for, run_plan
from simulation.shrink import Shrinker, tell


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2_000, help="how many seeds to run")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, help="run this one, and shrink its schedule if it fails")
    parser.add_argument("--shared", action="store_true", help="worlds in which several workers serve one hub")
    parser.add_argument(
        "--log", action="store_true", help="worlds with the hub in a log behind a bad network"
    )
    parser.add_argument("--verbose", action="store_true", help="with --seed: tell everything that happens")
    parser.add_argument("--lenient", action="store_true", help="do not demand that every case is met")
    parser.add_argument("--stop", action="store_true", help="stop at the first failure")
    parser.add_argument("--json", type=Path, help="write what ran to this file")
    given = parser.parse_args()
    if given.seed is not None:
        return one(given.seed, shared=given.shared, log=given.log, verbose=given.verbose)
    return many(given)


def many(given: argparse.Namespace) -> int:
    seeds = range(given.first, given.first + given.seeds)
    progress = campaign.Progress(len(seeds))
    summary = campaign.run(
        seeds, given.jobs, shared=given.shared, log=given.log, stop_at_first=given.stop, progress=progress
    )
    sys.stderr.write("\n")
    print(campaign.table(summary))
    for result in summary.failures[: campaign.SHOWN]:
        code, text = result.problems[0]
        print(f"\nseed {result.seed} [{code}] {text[:600]}")
        kind = " --shared" if given.shared else " --log" if given.log else ""
        print(f"again: python -m simulation --seed {result.seed}{kind}   (commit {campaign.git_commit()})")
    if given.json is not None:
        given.json.write_text(json.dumps(summary.as_json(), indent=2) + "\n")
    return 0 if summary.is_good(strict=not given.lenient) else 1


def one(seed: int, *, shared: bool, log: bool, verbose: bool) -> int:
    """Run one seed; if it fails, find the smallest schedule that fails in the same way."""
    plan = plan_for(seed, shared=shared, log=log)
    result = run_plan(plan, verbose=verbose)
    if not result.problems:
        print(f"seed {seed}: all is well, {result.commits} commits, trace {result.trace}")
        return 0
    for code, text in result.problems:
        print(f"seed {seed} [{code}] {text}")
    shrinker = Shrinker(plan, result.code)
    small = shrinker.shrink()
    print(f"\nthe same, shrunk in {shrinker.runs} runs (commit {campaign.git_commit()}):")
    print(tell(small))
    again = run_plan(small, verbose=verbose)
    for code, text in again.problems:
        print(f"[{code}] {text}")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
