"""One run of a plan, from its first event to its verdict."""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import dataclass, field, replace

from simulation.checks import FinalChecks
from simulation.plan import Plan
from simulation.plan_generator import plan_of
from simulation.shared_plans import shared_plan_of
from simulation.world import World


@dataclass
class Result:
    """The result of one seed. It travels between processes, so it is small and plain."""

    seed: int
    trace: str = ""
    steps: int = 0
    commits: int = 0
    crashes: int = 0
    histories: int = 0
    events: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)

    @property
    def code(self) -> str:
        """The kind of the first problem, "" when all is well."""
        return self.problems[0][0] if self.problems else ""


def run_plan(plan: Plan, *, verbose: bool = False) -> Result:
    """Run a plan and judge it. An error of the simulator's own is a problem like any other."""
    result = Result(plan.seed)
    world = World(plan, verbose=verbose)
    try:
        result.trace = world.run()
        if not world.ledger.problems:
            FinalChecks(world).reach()
        result.problems = [(problem.code, problem.text) for problem in world.ledger.problems]
    except Exception:
        result.problems = [("simulator", traceback.format_exc())]
    finally:
        world.dispose()
    result.steps, result.commits = world.steps, world.ledger.commits
    result.crashes = world.crashes
    pasts = [past for run in world.ledger.runs.values() for past in run.executions.values()]
    result.histories = len(pasts)
    result.events = sum(len(events) for past in pasts for _, events in past.recorded)
    result.met = world.met.counts
    return result


def run_seed(seed: int, *, shared: bool = False, log: bool = False, verbose: bool = False) -> Result:
    return run_plan(plan_for(seed, shared=shared, log=log), verbose=verbose)


def plan_for(seed: int, *, shared: bool = False, log: bool = False) -> Plan:
    """The plan of a seed: for several workers, with the hub in a log, or as it is."""
    if shared:
        return shared_plan_of(seed)
    plan = plan_of(seed)
    return replace(plan, knobs=replace(plan.knobs, store="log")) if log else plan
