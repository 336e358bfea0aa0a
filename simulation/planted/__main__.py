"""Tests of the tests: apply each patch to a copy of the sources, and see who notices.

`python -m simulation.planted` runs the quick budget of the simulator on each (worlds of several workers, or with the
hub in a log, for those that say so), stopping at the first red, which may be that it does not come to an end; what
stays green there is given to the tests that the patch names. A patch that nobody notices fails the run, and so does
one that no longer applies. The table goes to stdout and, with --json, to a file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

LONGEST = 240  # seconds; green ones need a quarter of a minute
HUNG = 124

WORLDS = {"World: shared": ["--shared", "--lenient"], "World: log": ["--log", "--lenient"]}

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclass
class Finding:
    """What became of one patch."""

    patch: str
    story: str
    caught_by: str = ""
    how: str = ""
    seconds: float = 0.0

    @property
    def is_caught(self) -> bool:
        return bool(self.caught_by)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation.planted", description=__doc__)
    parser.add_argument("--seeds", type=int, default=600, help="the quick budget")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="patches whose name contains this")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    findings = []
    for patch in sorted(HERE.glob("*.patch")):
        if given.only in patch.name:
            finding = examine(patch, given.seeds, given.jobs)
            findings.append(finding)
            print(row(finding), flush=True)
    missed = [finding.patch for finding in findings if not finding.is_caught]
    print(f"{len(findings) - len(missed)} of {len(findings)} planted bugs were caught")
    for name in missed:
        print(f"NOT CAUGHT: {name}")
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(finding) for finding in findings], indent=2) + "\n")
    return 1 if missed or not findings else 0


def row(finding: Finding) -> str:
    caught = f"{finding.caught_by} {finding.how}" if finding.is_caught else f"NOTHING ({finding.how})"
    return f"{finding.patch:<38} {finding.seconds:>5.0f} s  {caught}"


def examine(patch: Path, seeds: int, jobs: int) -> Finding:
    """Apply one patch to a copy, and ask the tools in turn."""
    lines = patch.read_text().splitlines()
    finding = Finding(patch.stem, lines[0])
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="perdure-planted-") as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__"))
        refusal = apply(patch, copy)
        if refusal:
            finding.how = f"the patch no longer applies: {refusal}"
        else:
            world = next((WORLDS[line] for line in lines if line in WORLDS), [])
            also = [line[6:].split() for line in lines if line.startswith("Also: ")]
            _ask(finding, copy, ["--seeds", str(seeds), "--jobs", str(jobs), *world], also)
    finding.seconds = round(time.monotonic() - began, 1)
    return finding


def apply(patch: Path, copy: Path) -> str:
    """Apply a patch to the copy; returns why not, "" when it went well."""
    done = subprocess.run(
        ["git", "apply", "-C1", "--whitespace=nowarn", str(patch)],
        cwd=copy,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(copy.parent), "GIT_DIR": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[0]


def _ask(finding: Finding, copy: Path, budget: list[str], also: list[list[str]]) -> None:
    told = copy / "told.json"
    command = ["-m", "simulation", *budget, "--stop", "--json", str(told)]
    code = _run(copy, command)
    if code != 0:
        finding.caught_by = "simulation"
        finding.how = "it never came to an end" if code == HUNG else _first(told)
        return
    for tests in also:
        if _run(copy, ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]) == 1:
            finding.caught_by, finding.how = "pytest", " ".join(tests)
            return
    finding.how = f"{budget[1]} seeds and {len(also)} sets of tests were green"


def _run(copy: Path, arguments: list[str]) -> int:
    path = os.pathsep.join([str(copy / "src"), str(ROOT)])
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(LONGEST)
    except subprocess.TimeoutExpired:
        return HUNG
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own processes, too
        process.wait()


def _first(told: Path) -> str:
    """The first thing that was wrong."""
    if not told.exists():
        return "it did not even run"
    report = json.loads(told.read_text())
    if report["failures"]:
        first = report["failures"][0]
        return f"[{first['code']}] after {report['seeds']} seeds"
    return f"never met: {report['cases_missed'][0]}"


if __name__ == "__main__":
    raise SystemExit(main())
