"""Elo of a match with its 95 % interval, and the likelihood of superiority.

Both rest on the likelihood ratio that the sequential test takes, not on a normal distribution of the mean: a match that
one side won throughout has no variance, and its interval would be a point after a single game. Source: Wilks 1938 (the
ratio's distribution); Barndorff-Nielsen 1986 (its signed root).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparring.statistics.sprt import deviance, regular, scores

# the 95 % point of χ² with one degree of freedom
CHI_SQUARE_95 = 3.841458820694124


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

    The interval holds the mean scores that are not refuted at 5 %. Raises ValueError without games.
    """
    if sum(counts) <= 0:
        raise ValueError("counts are all zero: without games nothing is measured")
    _, observed = regular(counts)
    mean = sum(p * a for p, a in zip(observed, scores(counts), strict=True))
    low, high = 1 - _highest(counts[::-1]), _highest(counts)
    root = math.copysign(math.sqrt(deviance(counts, baseline)), mean - baseline)
    zero = elo_of_score(baseline)
    return Measured(
        elo=elo_of_score(mean) - zero,
        elo_low=elo_of_score(low) - zero,
        elo_high=elo_of_score(high) - zero,
        los=0.5 * (1 + math.erf(root / math.sqrt(2))),
        score=mean,
        games=round(sum(counts)) * (2 if len(counts) == 5 else 1),
    )


def _highest(counts: Sequence[float]) -> float:
    """The highest mean score that the counts do not refute.

    The likeliest distributions of a given mean are one family, pᵢ ∝ p̂ᵢ/(1 − y·aᵢ): as y goes from 0 to 1 the mean rises
    and the likelihood falls, so that one bisection finds both. It goes over u = −ln(1 − y), because rare outcomes only
    count where y is next to 1.
    """
    total, observed = regular(counts)
    support = scores(counts)

    def at(u: float) -> tuple[float, float]:
        factors = [1 / (1 - a + a * math.exp(-u)) for a in support]
        whole = sum(p * f for p, f in zip(observed, factors, strict=True))
        mean = sum(p * f * a for p, f, a in zip(observed, factors, support, strict=True)) / whole
        return mean, 2 * total * sum(p * math.log(whole / f) for p, f in zip(observed, factors, strict=True))

    low, high = 0.0, 100.0
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle)[1] < CHI_SQUARE_95 else (low, middle)
    return at(low)[0]
