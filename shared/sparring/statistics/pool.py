"""The ratings of a lane's pool, from its matches as the log holds them."""

from __future__ import annotations

from collections.abc import Sequence

from sparring.statistics.ratings import Result, rate
from sparring.statistics.sprt import scores

GENERATION0 = ""


def points_of(counts: Sequence[int]) -> tuple[float, int]:
    """The candidate's points and the games played; five counts are game pairs."""
    games_each = 2 if len(counts) == 5 else 1
    points = sum(n * a for n, a in zip(counts, scores(counts), strict=True)) * games_each
    return points, sum(counts) * games_each


def rate_pool(matches: Sequence[tuple[str, str, Sequence[int]]]) -> dict[str, tuple[float, float]]:
    """Elo and standard error of every model; `matches` are (candidate, baseline, counts), '' is generation 0, the anchor.

    A model's parent, for the prior, is the baseline of its first match.
    """
    results, parents = [], dict[str, str]()
    for candidate, baseline, counts in matches:
        if sum(counts) == 0 or candidate == baseline:
            continue
        points, games = points_of(counts)
        results.append(Result(candidate, baseline, points, games))
        parents.setdefault(candidate, baseline)
    return rate(results, [GENERATION0], parents)
