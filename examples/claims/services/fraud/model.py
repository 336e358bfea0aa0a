"""A logistic regression over the circumstances of a claim.

Its weights add up, so the score can be taken apart into reasons: a reason's points are the percentage points by
which the score would differ if the claim were average in this trait. It is also calibrated by the way it is
trained: of claims with a score of 0.3, about three in ten are fraudulent.

How sure it is of one claim shows in models trained on other samples of the same cases: where they disagree, there
were few cases like it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from examples.claims.services.fraud.circumstances import TRAITS, Circumstances
from examples.claims.services.fraud.training import Cases

Matrix = NDArray[np.float64]

REASONS = 5
SAMPLES, SEED = 20, 0
STRENGTH = 0.3  # of the fit; less than 1 keeps the weights of rare traits small


@dataclass(frozen=True)
class Reason:
    """A trait of the claim, and the percentage points that it adds to the score."""

    text: str
    points: int


@dataclass(frozen=True)
class Score:
    """The probability of fraud, how sure it is, and what weighed most. Every claim starts at `base` of 100."""

    score: float
    confidence: float
    model: str
    base: int
    reasons: tuple[Reason, ...]


class FraudModel:
    """A model that has learnt from cases."""

    def __init__(self, cases: Cases) -> None:
        self.name = cases.name
        numbers, ends = matrix_of(cases.claims), np.array(cases.fraudulent)
        self._model = untrained().fit(numbers, ends)
        rng = np.random.default_rng(SEED)
        samples = (rng.integers(len(ends), size=len(ends)) for _ in range(SAMPLES))
        self._others = [untrained().fit(numbers[sample], ends[sample]) for sample in samples]

    def score(self, claim: Circumstances) -> Score:
        """The score of one claim."""
        numbers = matrix_of([claim])
        scaler, regression = self._model[0], self._model[-1]
        weights = scaler.transform(numbers)[0] * regression.coef_[0]  # 0 where the claim is average
        base = float(regression.intercept_[0])
        odds = base + float(weights.sum())
        reasons = [
            Reason(
                trait.words(claim),
                round(100 * (_share(odds) - _share(odds - float(weights[start:end].sum())))),
            )
            for trait, (start, end) in zip(TRAITS, _spans(claim), strict=True)
        ]
        reasons.sort(key=lambda reason: -abs(reason.points))
        opinions = [float(other.predict_proba(numbers)[0, 1]) for other in self._others]
        low, high = np.percentile(opinions, (10, 90))
        return Score(
            score=round(_share(odds), 3),
            confidence=round(1 - float(high - low), 2),
            model=self.name,
            base=round(100 * _share(base)),
            reasons=tuple(reasons[:REASONS]),
        )


def untrained() -> Pipeline:
    """The model before it has learnt anything."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=500))


def matrix_of(claims: Sequence[Circumstances]) -> Matrix:
    """A row for each claim, with the numbers of all its traits."""
    return np.array([[number for trait in TRAITS for number in trait.numbers(claim)] for claim in claims])


def _spans(claim: Circumstances) -> list[tuple[int, int]]:
    """Which columns belong to each trait."""
    return list(pairwise(accumulate((len(trait.numbers(claim)) for trait in TRAITS), initial=0)))


def _share(odds: float) -> float:
    return float(1 / (1 + np.exp(-odds)))
