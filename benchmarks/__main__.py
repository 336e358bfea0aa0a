"""`python -m benchmarks`: perdure and its peers through the same workloads, in one run, side by side."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import report, stored
from benchmarks.install import cache_folder
from benchmarks.machine import facts
from benchmarks.process import HERE, KINDS
from benchmarks.workloads import QUICK, Row, Sizes, beside_cpu, repetition

SIZES = ("hello", "together", "single", "fan", "sequence", "waiting")
WORKLOADS = ("W1", "W2", "W3", "W4", "W5")
ENGINES = tuple(name for name in KINDS if name != "baseline")


def main() -> None:
    chosen = _arguments()
    sizes = _sizes(chosen)
    folder = cache_folder() / "data" / str(os.getpid())
    folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "taken": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "revision": revision(),
        "machine": facts(folder),
        "sizes": sizes.as_row(),
    }
    if not chosen.beside_cpu and not chosen.stored:
        runs = report.Runs(_side_by_side(chosen, sizes, folder))
        result["runs"] = runs.rows
        result["goals"] = [asdict(goal) for goal in report.goals(runs)]
        print("\n" + report.tables(runs))
    if chosen.beside_cpu:
        result["beside_cpu"] = rows = beside_cpu(chosen.beside_cpu, sizes, folder / "perdure")
        print("\n" + report.beside_table(rows))
    if chosen.stored:
        result["stored"] = kept = stored.measure(chosen.stored, sizes, folder)
        print("\n" + stored.tables(kept))
    shutil.rmtree(folder, ignore_errors=True)
    if not chosen.no_save and not chosen.quick:
        print(f"\nsaved as benchmarks/results/{save(result).name}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, epilog="See benchmarks/README.md."
    )
    parser.add_argument("--repeat", type=int, default=3, help="repetitions, of which the median counts (3)")
    parser.add_argument("--engines", type=_names(ENGINES), default=ENGINES, help=f"of {','.join(ENGINES)}")
    parser.add_argument("--workloads", type=_names(WORKLOADS), default=WORKLOADS, help="of W1,W2,W3,W4,W5")
    parser.add_argument("--quick", action="store_true", help="small sizes, not saved: does it work at all?")
    parser.add_argument(
        "--patience", type=float, help="seconds to wait for a quiet machine before each workload"
    )
    parser.add_argument(
        "--size", type=_size, action="append", default=[], metavar="NAME=N", help=f"of {', '.join(SIZES)}"
    )
    parser.add_argument(
        "--beside-cpu",
        type=_numbers,
        metavar="1,4",
        help="instead: W1 and W2 beside so many CPU-bound activities",
    )
    parser.add_argument(
        "--stored", type=int, nargs="?", const=1_000_000, metavar="N",
        help="instead: tables of N stored instances (1000000): disk, restart, W1, W2, lists",
    )  # fmt: skip
    parser.add_argument("--no-save", action="store_true", help="print only")
    return parser.parse_args()


def _names(known: tuple[str, ...]) -> Any:
    def names(text: str) -> tuple[str, ...]:
        found = tuple(name.strip() for name in text.split(","))
        if unknown := set(found) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(known)}")
        return found

    return names


def _size(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in SIZES or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: give one of {', '.join(SIZES)} a number, as in hello=5000")
    return name, int(number)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _sizes(chosen: argparse.Namespace) -> Sizes:
    sizes = QUICK if chosen.quick else Sizes()
    if chosen.patience is not None:
        sizes = replace(sizes, patience=chosen.patience)
    return replace(sizes, **dict(chosen.size))


def _side_by_side(chosen: argparse.Namespace, sizes: Sizes, folder: Path) -> list[Row]:
    """Every repetition takes all engines, each time beginning with another one."""
    kinds = []
    for name in chosen.engines:
        missing = KINDS[name].missing()
        if missing:
            print(f"{name}: left out, {missing}")
        else:
            kinds.append(KINDS[name])
    if not kinds:
        raise SystemExit("nothing to measure: none of these engines is installed")
    rows = []
    for no in range(chosen.repeat):
        for kind in [*kinds[no % len(kinds) :], *kinds[: no % len(kinds)]]:
            row = repetition(kind, set(chosen.workloads), sizes, folder / kind.name)
            row["repetition"] = no + 1
            rows.append(row)
            print(f"{no + 1}/{chosen.repeat} {kind.name}: {_in_a_line(row)}", flush=True)
    order = [kind.name for kind in kinds]
    return sorted(rows, key=lambda row: order.index(row["engine"]))


def _in_a_line(row: Row) -> str:
    units = {"per_s": "/s", "p50_ms": " ms", "seconds": " s", "kb_each": " KB", "process_seconds": " s"}
    found = [
        f"{part} {values[key]:,}{unit}"
        for part, values in row.items()
        if isinstance(values, dict)
        for key, unit in units.items()
        if key in values
    ]
    return ", ".join([*found, *(["FAILED: " + row["error"].splitlines()[0]] if "error" in row else [])])


def revision() -> str:
    """The commit that was measured, with a + when files differ from it; "" outside a repository."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty=+"], cwd=HERE, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def save(result: dict[str, Any], prefix: str = "") -> Path:
    """Among the results, under the day it was taken."""
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    names = (f"{prefix}{result['taken'][:10]}{f'-{no}' if no > 1 else ''}.json" for no in range(1, 1_000))
    path = next(folder / name for name in names if not (folder / name).exists())
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


if __name__ == "__main__":
    main()
