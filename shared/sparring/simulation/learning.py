"""What training does to strength: each candidate has a true Elo, and match results are drawn from it."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Curve:
    """A candidate gains `first_gain` Elo on its parent at generation 0, less the stronger the parent already is.

    The mean gain is `first_gain`·exp(−Elo/`fade_elo`), the spread of one training is `spread` Elo: some candidates are
    worse than their parent, so gates reject.
    """

    first_gain: float = 90.0
    fade_elo: float = 700.0
    spread: float = 25.0
    draws: float = 0.1

    def gain(self, parent_elo: float, rng: random.Random) -> float:
        return rng.gauss(self.first_gain * math.exp(-max(0.0, parent_elo) / self.fade_elo), self.spread)


def expected_score(elo: float) -> float:
    """The logistic model's mean score at an Elo difference."""
    return 1.0 / (1.0 + float(10.0 ** (-elo / 400.0)))


def pair_counts(difference: float, pairs: int, draws: float, rng: random.Random) -> tuple[int, int, int, int, int]:
    """Results of game pairs at a true Elo difference, from worst to best for the candidate."""
    score = expected_score(difference)
    drawn = draws * 2 * min(score, 1 - score)
    win = score - drawn / 2
    counts = [0, 0, 0, 0, 0]
    for _ in range(pairs):
        points = 0
        for _ in range(2):
            value = rng.random()
            points += 2 if value < win else 1 if value < win + drawn else 0
        counts[points] += 1
    return counts[0], counts[1], counts[2], counts[3], counts[4]


class Strengths:
    """The true Elo of every model that a simulated training made; '' is generation 0 with 0 Elo."""

    def __init__(self, curve: Curve) -> None:
        self.curve = curve
        self._elo: dict[str, float] = {"": 0.0}

    def of(self, model: str) -> float:
        return self._elo.get(model, 0.0)

    def train(self, parent: str, cause: str, rng: random.Random) -> str:
        """A new model's SHA-256; its weights differ with every cause."""
        model = hashlib.sha256(f"model {cause}".encode()).hexdigest()
        self._elo[model] = self.of(parent) + self.curve.gain(self.of(parent), rng)
        return model

    def known(self) -> Mapping[str, float]:
        return dict(self._elo)
