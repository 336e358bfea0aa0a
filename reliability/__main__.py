"""`python -m reliability [--long]`: run the programme, print what ran, and write reliability.json.

Quick takes a few minutes and is for every change; long is for a release. The figures quoted anywhere are those of a
file this command wrote: seeds, steps, cuts, kills, commits, violations, and the commit of the code they ran on.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reliability.parts import PARTS, Size
from simulation import campaign

QUICK = Size(
    seeds=600, shared_seeds=500, cuts=400, careless=100, stride=43, kills=8, worker_kills=8, planted_seeds=0
)
LONG = Size(
    seeds=21_000,
    shared_seeds=12_000,
    cuts=10_400,
    careless=300,
    stride=1,
    kills=200,
    worker_kills=50,
    planted_seeds=600,
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m reliability", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--long", action="store_true", help="the release programme; writes reliability.json")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--only", action="append", choices=PARTS, help="this part (may be repeated); others of the file stay"
    )
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    target = given.json or (Path("reliability.json") if given.long else None)
    names = given.only or list(PARTS)
    report = run(LONG if given.long else QUICK, given.seed, given.jobs, names)
    if given.only and target is not None and target.exists():
        report = with_others(report, json.loads(target.read_text()))
    print(table(report))
    if target is not None:
        target.write_text(json.dumps(report, indent=2) + "\n")
        print(f"figures: {target}")
    return 0 if report["violations"] == 0 else 1


def run(size: Size, seed: int, jobs: int, names: list[str]) -> dict[str, Any]:
    """Run the parts in turn; each reports its runs and the number of violations."""
    began = time.monotonic()
    report: dict[str, Any] = {
        "commit": campaign.git_commit(),
        "python": platform.python_version(),
        "size": asdict(size),
        "parts": {},
    }
    for name in names:
        sys.stderr.write(f"{name}\n")
        since = time.monotonic()
        found = PARTS[name](size, seed, jobs)
        if found is not None:
            took = round(time.monotonic() - since)
            report["parts"][name] = {**found, "commit": report["commit"], "seconds": took}
    report["violations"] = sum(part["violations"] for part in report["parts"].values())
    report["seconds"] = round(time.monotonic() - began)
    return report


def with_others(report: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The current report, completed by the parts of an earlier file that did not run; each names its own
    commit.
    """
    others = {name: {"commit": before["commit"], **part} for name, part in before["parts"].items()}
    parts = {**others, **report["parts"]}
    return {
        **report,
        "parts": {name: parts[name] for name in PARTS if name in parts},
        "violations": sum(part["violations"] for part in parts.values()),
        "seconds": sum(part["seconds"] for part in parts.values()),
    }


@dataclass(frozen=True)
class Row:
    """A line of the table, with the place of its figure in the report."""

    title: str
    part: str
    key: str


ROWS = (
    Row("simulated lives (seeds)", "simulation", "seeds"),
    Row("  a minute", "simulation", "seeds_per_minute"),
    Row("  turns of the loop", "simulation", "steps"),
    Row("  commits", "simulation", "commits"),
    Row("  crashes in them", "simulation", "crashes"),
    Row("  histories replayed, prefix by prefix", "simulation", "histories"),
    Row("  violations", "simulation", "violations"),
    Row("the same with several workers (seeds)", "several_workers", "seeds"),
    Row("  a minute", "several_workers", "seeds_per_minute"),
    Row("  turns with something to do", "several_workers", "steps"),
    Row("  commits", "several_workers", "commits"),
    Row("  processes that died or left", "several_workers", "crashes"),
    Row("  violations", "several_workers", "violations"),
    Row("power cuts at FULL", "power_cuts", "cuts"),
    Row("  acknowledged commits lost", "power_cuts", "lost_commits"),
    Row("  corruptions", "power_cuts", "corruptions"),
    Row("power cuts at NORMAL", "power_cuts_at_normal", "cuts"),
    Row("  of them with a loss (there must be some)", "power_cuts_at_normal", "cuts_with_loss"),
    Row("runs on a failing disk", "failing_disk", "runs"),
    Row("  violations", "failing_disk", "violations"),
    Row("processes killed", "kills", "kills"),
    Row("  claims acknowledged", "kills", "acknowledged"),
    Row("  of them lost", "kills", "lost"),
    Row("  claims paid twice", "kills", "paid_twice"),
    Row("workers on PostgreSQL killed", "kills_on_postgres", "kills"),
    Row("  stopped for longer than their lease", "kills_on_postgres", "pauses"),
    Row("  claims acknowledged", "kills_on_postgres", "acknowledged"),
    Row("  of them lost", "kills_on_postgres", "lost"),
    Row("  claims paid twice", "kills_on_postgres", "paid_twice"),
    Row("  commits of a void incarnation", "kills_on_postgres", "stale_transactions"),
    Row("the claims example on PostgreSQL, kills", "claims_on_postgres", "kills"),
    Row("  claims filed", "claims_on_postgres", "filed"),
    Row("  of them lost", "claims_on_postgres", "lost"),
    Row("  paid twice", "claims_on_postgres", "paid_twice"),
    Row("planted bugs", "planted_bugs", "planted"),
    Row("  caught", "planted_bugs", "caught"),
)


def table(report: dict[str, Any]) -> str:
    """The runs and findings as a table, and the detection of each planted bug."""
    parts = report["parts"]
    lines = [f"{row.title:<46}{parts[row.part][row.key]:>14,}" for row in ROWS if row.part in parts]
    lines.append(f"{'violations in all':<46}{report['violations']:>14,}")
    lines.append(f"{'minutes':<46}{report['seconds'] / 60:>14.1f}")
    findings = parts.get("planted_bugs", {}).get("findings", ())
    lines.extend(f"  {f['patch']:<28}{f['caught_by'] or 'NOTHING':<12}{f['how']}" for f in findings)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
