"""Elo of a match with its 95 % interval, and the likelihood of superiority."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparring.statistics.sprt import ZERO_COUNT, scores

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Measured:
    """Logistic Elo; `los` is the probability that the candidate is the stronger one."""

    elo: float
    elo_low: float
    elo_high: float
    los: float
    score: float
    games: int


def elo_of_score(score: float) -> float:
    """The logistic model's Elo at a mean score; ends at ±1200 rather than at infinity."""
    inside = min(max(score, 1e-3), 1 - 1e-3)
    return 400 * math.log10(inside / (1 - inside))


def measure(counts: Sequence[float], baseline: float = 0.5) -> Measured:
    """`counts` from worst to best; five are game pairs. `baseline` is the score of equals (1/k for k players).

    Raises ValueError without games.
    """
    if sum(counts) <= 0:
        raise ValueError("counts are all zero: without games nothing is measured")
    filled = [count if count > 0 else ZERO_COUNT for count in counts]
    total = sum(filled)
    support = scores(counts)
    mean = sum(n * a for n, a in zip(filled, support, strict=True)) / total
    variance = sum(n * (a - mean) ** 2 for n, a in zip(filled, support, strict=True)) / total
    error = math.sqrt(variance / total)
    zero = elo_of_score(baseline)
    los = 0.5 * (1 + math.erf((mean - baseline) / (error * math.sqrt(2)))) if error > 0 else 0.5
    games = round(sum(counts)) * (2 if len(counts) == 5 else 1)
    low, high = mean - Z95 * error, mean + Z95 * error
    return Measured(elo_of_score(mean) - zero, elo_of_score(low) - zero, elo_of_score(high) - zero, los, mean, games)
