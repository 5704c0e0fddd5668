"""The generalised sequential probability ratio test over game pairs.

Source: Van den Bergh, notes on the GSPRT and on normalized Elo; the same statistics as fishtest and fastchess.
Counts go from the worst to the best outcome; their scores are evenly spaced in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["running", "accepted", "rejected"]
Model = Literal["normalized", "logistic"]
ZERO_COUNT = 1e-3
ELO_PER_T = 800 / math.log(10)


@dataclass(frozen=True)
class Bounds:
    """Wald's bounds on the log-likelihood ratio."""

    lower: float
    upper: float


def bounds(alpha: float = 0.05, beta: float = 0.05) -> Bounds:
    """`lower` = ln(β/(1−α)), `upper` = ln((1−β)/α). Raises ValueError outside 0 < α, β < .5."""
    if not (0 < alpha < 0.5 and 0 < beta < 0.5):
        raise ValueError(f"alpha = {alpha}, beta = {beta}: both must lie between 0 and .5")
    return Bounds(math.log(beta / (1 - alpha)), math.log((1 - beta) / alpha))


def scores(counts: Sequence[float]) -> list[float]:
    """The score of each outcome: 0, 1/(k−1), … 1."""
    return [index / (len(counts) - 1) for index in range(len(counts))]


def expected_score(elo: float) -> float:
    """The logistic model's mean score at that Elo difference."""
    return float(1 / (1 + 10 ** (-elo / 400)))


def regular(counts: Sequence[float]) -> tuple[float, list[float]]:
    """How many there are and the share of each outcome; none is impossible. Raises ValueError for a negative count."""
    if len(counts) < 2 or any(count < 0 for count in counts):
        raise ValueError(f"counts = {list(counts)}: two or more, none negative")
    filled = [count if count > 0 else ZERO_COUNT for count in counts]
    total = sum(filled)
    return total, [count / total for count in filled]


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """The zero of a decreasing function between poles at both ends; bisection keeps within them."""
    width = high - low
    low, high = low + 1e-14 * width, high - 1e-14 * width
    for _ in range(200):
        middle = (low + high) / 2
        if function(middle) > 0:
            low = middle
        else:
            high = middle
        if high - low <= 1e-15 * max(1.0, abs(middle)):
            break
    return (low + high) / 2


def _tilted(observed: Sequence[float], directions: Sequence[float]) -> list[float]:
    """The distribution nearest to the observed one under which the directions have mean zero."""

    def mean(x: float) -> float:
        return sum(p * d / (1 + x * d) for p, d in zip(observed, directions, strict=True))

    x = _root(mean, -1 / max(directions), -1 / min(directions))
    return [p / (1 + x * d) for p, d in zip(observed, directions, strict=True)]


def with_mean(observed: Sequence[float], support: Sequence[float], mean: float) -> list[float]:
    """The maximum-likelihood distribution with that mean score."""
    return _tilted(observed, [score - mean for score in support])


def with_t_value(observed: Sequence[float], support: Sequence[float], t: float) -> list[float]:
    """The maximum-likelihood distribution whose (mean − ½)/σ is `t`; iterates from the uniform one."""
    q = [1 / len(support)] * len(support)
    for _ in range(200):
        mean = sum(p * a for p, a in zip(q, support, strict=True))
        sigma = math.sqrt(sum(p * (a - mean) ** 2 for p, a in zip(q, support, strict=True)))
        directions = [a - 0.5 - t * sigma * (1 + ((mean - a) / sigma) ** 2) / 2 for a in support]
        fresh = _tilted(observed, directions)
        change = max(abs(a - b) for a, b in zip(q, fresh, strict=True))
        q = fresh
        if change < 1e-9:
            break
    return q


def _ratio(total: float, observed: Sequence[float], zero: Sequence[float], one: Sequence[float]) -> float:
    return total * sum(p * math.log(b / a) for p, a, b in zip(observed, zero, one, strict=True))


def deviance(counts: Sequence[float], mean: float) -> float:
    """Twice the log-likelihood by which the counts themselves are likelier than anything with that mean score."""
    total, observed = regular(counts)
    return max(0.0, 2 * _ratio(total, observed, with_mean(observed, scores(counts), mean), observed))


def llr_of_means(counts: Sequence[float], mean0: float, mean1: float) -> float:
    """The log-likelihood ratio of two mean scores: logistic Elo, and win-only tests with a baseline of 1/k."""
    if not (0 < mean0 < 1 and 0 < mean1 < 1):
        raise ValueError(f"mean scores {mean0} and {mean1}: both must lie between 0 and 1")
    total, observed = regular(counts)
    support = scores(counts)
    return _ratio(total, observed, with_mean(observed, support, mean0), with_mean(observed, support, mean1))


def llr(counts: Sequence[float], elo0: float, elo1: float, model: Model = "normalized") -> float:
    """The log-likelihood ratio of H1 (`elo1`) to H0 (`elo0`). Five counts are game pairs, two or three single games."""
    if model == "logistic":
        return llr_of_means(counts, expected_score(elo0), expected_score(elo1))
    total, observed = regular(counts)
    support = scores(counts)
    # a pair has half the variance of a game: its t-value is √2 as large
    games = math.sqrt(2) if len(counts) == 5 else 1.0
    zero, one = (with_t_value(observed, support, elo / ELO_PER_T * games) for elo in (elo0, elo1))
    return _ratio(total, observed, zero, one)


def state_of(ratio: float, limits: Bounds) -> State:
    if ratio >= limits.upper:
        return "accepted"
    return "rejected" if ratio <= limits.lower else "running"


def can_still_pass(
    counts: Sequence[int], remaining: int, elo0: float, elo1: float, model: Model, limits: Bounds
) -> bool:
    """Whether H1 could still be accepted if all remaining pairs were won."""
    best = [*counts[:-1], counts[-1] + remaining]
    return llr(best, elo0, elo1, model) >= limits.upper
