"""The parts of the programme: each runs its share, shows progress, and returns figures and violations."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from examples.claims.demo.report import FAULTS, FAULTS_IF_ANY
from examples.claims.source import claims_of, made_up
from powercuts.parallel_run import CutProgress as Cuts
from powercuts.parallel_run import cut_many, fail_everywhere, quiet
from powercuts.parallel_run import figures as cut_figures
from powercuts.sweep import Sweep
from simulation import campaign
from tests.crash.killing import Account, Killer
from tests.postgres.claims import processed
from tests.postgres.killing import LONG as WORKERS
from tests.postgres.killing import run as kill_workers
from tests.postgres.servers import NEWEST, Server


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    seeds: int
    shared_seeds: int
    cuts: int
    careless: int  # cuts with synchronous=NORMAL
    stride: int  # the failing disk fails at each n-th operation
    kills: int
    worker_kills: int  # of workers that share a database; a fifth as many are stopped beyond their lease
    planted_seeds: int  # what each planted bug may cost; 0 leaves them out


Figures = dict[str, Any]


def simulation(size: Size, seed: int, jobs: int) -> Figures:
    """Simulated runs with faults. A case that never occurred counts as a failure, because nothing is shown
    about it.
    """
    seeds = range(seed, seed + size.seeds)
    summary = campaign.run(seeds, jobs, progress=campaign.Progress(len(seeds)))
    sys.stderr.write("\n")
    return {**summary.as_json(), "violations": len(summary.failures) + len(summary.missed())}


def several_workers(size: Size, seed: int, jobs: int) -> Figures:
    """The same with several workers over one hub, and a database that fails."""
    seeds = range(seed, seed + size.shared_seeds)
    summary = campaign.run(seeds, jobs, shared=True, progress=campaign.Progress(len(seeds)))
    sys.stderr.write("\n")
    return {**summary.as_json(), "violations": len(summary.failures) + len(summary.missed())}


def power_cuts(size: Size, seed: int, jobs: int) -> Figures:
    """At FULL nothing that was acknowledged may be missing."""
    quiet()
    tally = cut_many(size.cuts, jobs=jobs, seed=seed + 1, progress=Cuts(size.cuts))
    return {**cut_figures(tally, seed + 1), "violations": len(tally.problems)}


def power_cuts_at_normal(size: Size, seed: int, jobs: int) -> Figures:
    """At NORMAL something must be missing, or the test would not bite."""
    tally = cut_many(size.careless, jobs=jobs, seed=seed + 1, careless=True)
    return {**cut_figures(tally, seed + 1), "violations": int(tally.cuts_with_loss == 0)}


def failing_disk(size: Size, seed: int, jobs: int) -> Figures:
    """An error at every n-th operation of a scripted run, for each way in which a disk can fail."""
    runs: dict[str, int] = {}

    def show(name: str, so_far: Sweep) -> None:
        runs[name] = so_far.runs
        sys.stderr.write(f"\r{sum(runs.values()):>7} runs with a failing disk ")
        sys.stderr.flush()

    found = fail_everywhere(jobs=jobs, stride=size.stride, progress=show)
    sys.stderr.write("\n")
    return {
        "stride": size.stride,
        "runs": sum(sweep.runs for sweep in found.values()),
        "faults": {name: sweep.figures() for name, sweep in found.items()},
        "violations": sum(len(sweep.problems) for sweep in found.values()),
    }


def kills(size: Size, seed: int, jobs: int) -> Figures:
    """A process that pays claims is killed again and again."""

    def show(account: Account) -> None:
        sys.stderr.write(f"\r{account.kills:>7}/{size.kills} kills, {account.filed} claims ")
        sys.stderr.flush()

    with tempfile.TemporaryDirectory(prefix="perdure-kills-") as directory:
        account = Killer(Path(directory), seed).run(size.kills, show)
    sys.stderr.write("\n")
    return {**account.figures(), "violations": 0 if account.ok else max(1, len(account.problems))}


def kills_on_postgres(size: Size, seed: int, jobs: int) -> Figures:
    """Three workers on one PostgreSQL: killed, stopped beyond their lease, and their client's commits cut off."""
    plan = replace(WORKERS, kills=size.worker_kills, pauses=max(size.worker_kills // 5, 2))
    with tempfile.TemporaryDirectory(prefix="perdure-workers-") as directory:
        account = kill_workers(NEWEST, plan, seed, Path(directory))
    return {**account.figures(), "violations": 0 if account.ok else max(1, len(account.problems))}


def claims_on_postgres(size: Size, seed: int, jobs: int) -> Figures:
    """The claims example with three workers, which are killed; the bank's own book has the payments."""
    claims = list(claims_of(made_up(20 * size.worker_kills)))
    with tempfile.TemporaryDirectory(prefix="perdure-claims-") as folder, Server(NEWEST) as server:
        os.environ["CLAIMS_HOME"] = folder
        with server.database() as url:
            found, killed = asyncio.run(
                processed(url, Path(folder), claims, size.worker_kills, gap=1.2, seed=seed)
            )
    faults = {name.replace(" ", "_"): found.numbers[name] for name in (*FAULTS, *FAULTS_IF_ANY)}
    return {"filed": found.numbers["filed"], "kills": killed, **faults, "violations": sum(faults.values())}


def planted_bugs(size: Size, seed: int, jobs: int) -> Figures | None:
    """Each known mistake, put back, must turn something red."""
    if not size.planted_seeds:
        return None
    with tempfile.TemporaryDirectory(prefix="perdure-planted-") as directory:
        target = Path(directory) / "planted.json"
        command = ["-m", "simulation.planted", "--seeds", str(size.planted_seeds), "--jobs", str(jobs)]
        done = subprocess.run([sys.executable, *command, "--json", str(target)], check=False)
        findings = json.loads(target.read_text()) if target.exists() else []
    missed = [finding["patch"] for finding in findings if not finding["caught_by"]]
    return {
        "planted": len(findings),
        "caught": len(findings) - len(missed),
        "missed": missed,
        "findings": findings,
        "violations": max(len(missed), int(done.returncode != 0)),
    }


PARTS: dict[str, Callable[[Size, int, int], Figures | None]] = {
    "simulation": simulation,
    "several_workers": several_workers,
    "power_cuts": power_cuts,
    "power_cuts_at_normal": power_cuts_at_normal,
    "failing_disk": failing_disk,
    "kills": kills,
    "kills_on_postgres": kills_on_postgres,
    "claims_on_postgres": claims_on_postgres,
    "planted_bugs": planted_bugs,
}
