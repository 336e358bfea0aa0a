"""`python -m reliability [--long]`: run the programme, print what ran, and write reliability.json.

Quick takes a few minutes and is for every change; long is for a release. The figures quoted anywhere are those of a
file this command wrote: seeds, steps, cuts, kills, commits, violations, and the commit of the code they ran on.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from powercuts.run import quiet
from powercuts.run import summary as power_cuts
from simulation import campaign
from tests.crash.killing import Killer


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    seeds: int
    cuts: int
    kills: int
    planted: bool


QUICK = Size(seeds=600, cuts=400, kills=8, planted=False)
LONG = Size(seeds=20_000, cuts=10_000, kills=200, planted=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m reliability", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--long", action="store_true", help="the release programme; writes reliability.json")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    size = LONG if given.long else QUICK
    target = given.json or (Path("reliability.json") if given.long else None)
    report = run(size, given.seed, given.jobs)
    print(table(report))
    if target is not None:
        target.write_text(json.dumps(report, indent=2) + "\n")
        print(f"figures: {target}")
    return 0 if report["violations"] == 0 else 1


def run(size: Size, seed: int, jobs: int) -> dict[str, Any]:
    """Every part in turn; each says what it ran and how many violations it found."""
    began = time.monotonic()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "simulation": lambda: _simulation(size, seed, jobs),
        "power_cuts": lambda: _power_cuts(size, seed, jobs),
        "kills": lambda: _kills(size, seed),
    }
    if size.planted:
        parts["planted_bugs"] = _planted
    report: dict[str, Any] = {
        "commit": campaign.git_commit(),
        "python": platform.python_version(),
        "parts": {},
    }
    for name, part in parts.items():
        print(f"{name} ...", flush=True)
        report["parts"][name] = part()
    report["violations"] = sum(part["violations"] for part in report["parts"].values())
    report["seconds"] = round(time.monotonic() - began)
    return report


def _simulation(size: Size, seed: int, jobs: int) -> dict[str, Any]:
    seeds = range(seed, seed + size.seeds)
    summary = campaign.run(seeds, jobs, progress=lambda done: campaign.show_progress(done, len(seeds)))
    sys.stderr.write("\n")
    figures = summary.as_json()
    # A campaign that never met a case has shown nothing about it.
    return {**figures, "violations": len(summary.failures) + len(summary.missed())}


def _power_cuts(size: Size, seed: int, jobs: int) -> dict[str, Any]:
    quiet()
    figures = power_cuts(size.cuts, jobs=jobs, seed=seed + 1)
    bites = figures["biting"]["cuts_with_loss"] > 0
    return {**figures, "violations": figures["problems"] + (0 if bites else 1)}


def _kills(size: Size, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="perdure-kills-") as directory:
        account = Killer(Path(directory), seed).run(size.kills)
        return {**account.figures(), "violations": 0 if account.ok else max(1, len(account.problems))}


def _planted() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="perdure-planted-") as directory:
        target = Path(directory) / "planted.json"
        done = subprocess.run(
            [sys.executable, "-m", "simulation.planted", "--json", str(target)], check=False
        )
        found: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {}
        return {**found, "violations": 0 if done.returncode == 0 else 1}


def table(report: dict[str, Any]) -> str:
    """What ran and what it found, in rows."""
    parts = report["parts"]
    rows = [
        ("simulated lives (seeds)", parts["simulation"]["seeds"]),
        ("  turns of the loop", parts["simulation"]["steps"]),
        ("  crashes in them", parts["simulation"]["crashes"]),
        ("  commits", parts["simulation"]["commits"]),
        ("power cuts", parts["power_cuts"]["cuts"]),
        ("  acknowledged commits lost at FULL", parts["power_cuts"]["lost_commits"]),
        ("  acknowledged commits lost at NORMAL (must lose)", parts["power_cuts"]["biting"]["lost_commits"]),
        ("processes killed", parts["kills"]["kills"]),
        ("  acknowledged claims lost", parts["kills"]["lost"]),
        ("  claims paid twice", parts["kills"]["paid_twice"]),
    ]
    if "planted_bugs" in parts:
        rows.append(("planted bugs not caught", parts["planted_bugs"]["violations"]))
    rows.append(("violations in all", report["violations"]))
    return "\n".join(f"{name:<52}{value:>14,}" for name, value in rows)


if __name__ == "__main__":
    sys.exit(main())
