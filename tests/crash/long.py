"""The long kill test: `python -m tests.crash.long --kills 1000`.

Kills a working process so many times and does the accounts; shows progress, ends with a table, and writes the
figures as JSON. Exit code 0 means that nothing was lost and nothing was paid twice. A failing run leaves its
directory; every run prints its seed (times of death depend on the machine all the same).
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.crash.killing import Account, Killer
from tests.crash.sweep import misfortune

_TABLE = (
    ("kills", "processes killed"),
    ("killed_before_ready", "  of them before they served"),
    ("filed", "claims filed"),
    ("acknowledged", "claims acknowledged"),
    ("repeated", "requests repeated with the same id"),
    ("lost", "acknowledged claims lost"),
    ("unfinished", "claims that did not end"),
    ("paid", "claims paid"),
    ("denied", "claims denied"),
    ("unpaid", "approved claims not paid"),
    ("paid_twice", "claims paid twice"),
    ("paid_and_denied", "claims denied and paid"),
    ("bodies", "activity bodies entered"),
    ("bodies_repeated", "  of them again, after a death or a retry"),
    ("ready_p50", "seconds from spawn to serving, median"),
    ("ready_p99", "seconds from spawn to serving, p99"),
    ("seconds", "seconds in all"),
)


def main() -> int:
    options = _options()
    directory = Path(options.directory or tempfile.mkdtemp(prefix="perdure-kills-"))
    directory.mkdir(parents=True, exist_ok=True)
    say(f"seed {options.seed}, in {directory}\n")
    if options.misfortunes:
        say(f"{misfortunes(options.seed, options.misfortunes)} runs with faults drawn by lot ended well\n")
    account = Killer(directory, options.seed).run(
        options.kills, lambda so_far: progress(so_far, options.kills)
    )
    say("\n\n" + table(account))
    figures = {"seed": options.seed, **account.figures()}
    Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")
    say(f"\nfigures: {options.json}\n")
    if account.ok and not options.directory:
        shutil.rmtree(directory)
    return 0 if account.ok else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.long", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--misfortunes", type=int, default=0, help="first, so many runs with random faults")
    parser.add_argument("--directory", help="where to work; it is kept")
    parser.add_argument("--json", default="kills.json", help="where to write the figures")
    return parser.parse_args()


def misfortunes(first: int, count: int) -> int:
    """Runs of the crash scenarios in memory. Raises AssertionError, with its seed, for one that goes wrong."""
    logging.getLogger("perdure").setLevel(logging.CRITICAL + 1)
    for seed in range(first, first + count):
        try:
            misfortune(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    return count


def progress(account: Account, kills: int) -> None:
    """One line, written over itself on a terminal."""
    left = account.seconds / max(account.kills, 1) * (kills - account.kills)
    end = "\r" if sys.stdout.isatty() else "\n"
    if end == "\r" or account.kills % max(kills // 20, 1) == 0:
        say(f"{account.kills}/{kills} kills, {account.filed} claims filed, {left:.0f} s to go   {end}")


def table(account: Account) -> str:
    figures = account.figures()
    lines = [f"{text:<45}{_shown(figures[name]):>10}" for name, text in _TABLE]
    lines.append("NOTHING LOST, NOTHING PAID TWICE" if account.ok else "FAILED")
    lines.extend(account.problems[:20])
    return "\n".join(lines) + "\n"


def _shown(value: float) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
