"""Claims whose end is known: what the model learns from.

Real ones come from the file that CLAIMS_CSV names, in its column `fraud_reported`. Without it they are generated,
and a law that we wrote decides which are fraudulent: a model that finds this law again has proved that it can
learn, and nothing about fraud.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path

from examples.claims.services.fraud.circumstances import HALF_A_YEAR, Circumstances
from examples.claims.source import claims_of, made_up, rows_of

GENERATED, SEED = 2_000, 1  # another seed than the claims of the demo
NOISE = 0.8
FEWEST = 40  # fraudulent claims, and honest ones, to learn from
ENDS = {"Y": True, "N": False}


@dataclass(frozen=True)
class Cases:
    """Claims, whether each was fraudulent, and a name for all of them that changes with their content."""

    name: str
    claims: Sequence[Circumstances]
    fraudulent: Sequence[bool]


def cases(path: Path | None) -> Cases:
    """The cases of a CSV file. Generated ones, if there is no file, or too few claims in it whose end is known."""
    rows = rows_of(path) if path else []
    known = [row for row in rows if row.get("fraud_reported") in ENDS]
    fraudulent = [ENDS[row["fraud_reported"]] for row in known]
    if min(fraudulent.count(True), fraudulent.count(False)) < FEWEST:
        return generated()
    return _named("csv", [Circumstances.of(claim) for claim in claims_of(known)], fraudulent)


def generated(number: int = GENERATED, seed: int = SEED) -> Cases:
    """Claims as the demo files them, about a quarter of them fraudulent."""
    rng = random.Random(seed)
    claims = [Circumstances.of(claim) for claim in claims_of(made_up(number, seed))]
    return _named("generated", claims, [rng.random() < _probability(claim, rng) for claim in claims])


def _probability(claim: Circumstances, rng: random.Random) -> float:
    """The law of the generated cases."""
    odds = (
        -3.7
        + 2.2 * (claim.severity == "Major Damage")
        + 1.1 * claim.charges_injuries_of_none
        + 1.2 * (claim.policy_days < HALF_A_YEAR)
        + 0.7 * (claim.witnesses == 0)
        + 0.5 * (claim.police_report is not True)
        + 0.5 * (claim.umbrella_limit > 0)
        + 0.4 * (claim.total >= 50_000)
        + rng.gauss(0, NOISE)
    )
    return 1 / (1 + exp(-odds))


def _named(source: str, claims: Sequence[Circumstances], fraudulent: Sequence[bool]) -> Cases:
    content = hashlib.sha256(repr((claims, fraudulent)).encode())
    return Cases(f"{source}-{content.hexdigest()[:8]}", claims, fraudulent)
