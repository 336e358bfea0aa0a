"""How good fraud scoring is: `python -m examples.claims.services.fraud.figures [CLAIMS.csv]` prints the table of
README.md.

Ten-fold cross-validation: each claim is scored by a model that has not seen it.
"""

import argparse
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from examples.claims.services.fraud.model import matrix_of, untrained
from examples.claims.services.fraud.training import Cases, cases

FOLDS = 10
EDGES = (0.0, 0.1, 0.2, 0.4, 0.6, 1.0)


@dataclass(frozen=True)
class Bin:
    """Claims with similar scores: how many, their mean score, and the share that was fraudulent."""

    low: float
    high: float
    claims: int
    score: float
    fraudulent: float


@dataclass(frozen=True)
class Figures:
    name: str
    claims: int
    fraudulent: float
    auc: float
    brier: float
    calibration_error: float
    bins: tuple[Bin, ...]


def figures_of(known: Cases) -> Figures:
    """Cross-validated figures."""
    ends = np.array(known.fraudulent)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    scores = cross_val_predict(untrained(), matrix_of(known.claims), ends, cv=folds, method="predict_proba")[
        :, 1
    ]
    bins = []
    for low, high in pairwise(EDGES):
        inside = (scores >= low) & (scores < high)
        if inside.any():
            bins.append(
                Bin(low, high, int(inside.sum()), float(scores[inside].mean()), float(ends[inside].mean()))
            )
    return Figures(
        name=known.name,
        claims=len(ends),
        fraudulent=float(ends.mean()),
        auc=float(roc_auc_score(ends, scores)),
        brier=float(brier_score_loss(ends, scores)),
        calibration_error=sum(each.claims * abs(each.score - each.fraudulent) for each in bins) / len(ends),
        bins=tuple(bins),
    )


def show(found: Figures) -> None:
    print(f"{found.name}: {found.claims:,} claims, {found.fraudulent:.1%} fraudulent")
    print(
        f"AUC {found.auc:.3f}, Brier score {found.brier:.3f}, calibration error {found.calibration_error:.3f}\n"
    )
    print("| score | claims | mean score | fraudulent |\n|---|---|---|---|")
    for each in found.bins:
        print(f"| {each.low} to {each.high} | {each.claims} | {each.score:.2f} | {each.fraudulent:.2f} |")
    print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Cross-validated figures of fraud scoring.")
    parser.add_argument("csv", nargs="?", type=Path, help="real claims; without it, only generated ones")
    given = parser.parse_args().csv
    for path in (None, given) if given else (None,):
        show(figures_of(cases(path)))
