"""Bradley–Terry ratings with pinned anchors and a prior: P(i beats j) = 1/(1+e^(gⱼ−gᵢ)), a draw is half a win each."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

ELO = 400 / math.log(10)
PARENT_DRAWS = 4.0
ORPHAN_DRAWS = 0.01
MOST_SIGMA = 10.0


@dataclass(frozen=True)
class Result:
    """`points` of `games` that the first player made against the second."""

    first: str
    second: str
    points: float
    games: float


def rate(
    results: Iterable[Result], anchors: Iterable[str], parents: Mapping[str, str] | None = None, *, prior: bool = True
) -> dict[str, tuple[float, float]]:
    """Elo and its standard error for every player; anchors stay at 0.

    The prior: 4 virtual draws against the parent; a player without one gets .01 spread over all others.
    The outcome does not depend on the order of the results.
    """
    points: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    games: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))

    def add(first: str, second: str, won: float, played: float) -> None:
        points[first][second] += won
        points[second][first] += played - won
        games[first][second] += played
        games[second][first] += played

    fixed = set(anchors)
    for one in sorted(results, key=lambda r: (r.first, r.second, r.points, r.games)):
        add(one.first, one.second, one.points, one.games)
    players = sorted(set(games) | fixed)
    if prior:
        for player in players:
            parent = (parents or {}).get(player)
            if player in fixed:
                continue
            others = [parent] if parent in players else [other for other in players if other != player]
            draws = PARENT_DRAWS if parent in players else ORPHAN_DRAWS
            for other in others:
                add(player, str(other), draws / len(others) / 2, draws / len(others))
    return _solve(players, fixed, points, games)


def _solve(
    players: list[str],
    fixed: set[str],
    points: Mapping[str, Mapping[str, float]],
    games: Mapping[str, Mapping[str, float]],
) -> dict[str, tuple[float, float]]:
    g = dict.fromkeys(players, 0.0)
    free = [player for player in players if player not in fixed and games[player]]
    # coordinate-wise Newton steps on a concave likelihood; a step is bounded, so that 100 % scores stay finite
    for _ in range(2000):
        moved = 0.0
        for player in free:
            slope, curvature = _derivatives(player, g, points[player], games[player])
            step = max(-2.0, min(2.0, slope / max(curvature, 1e-9)))
            g[player] = max(-40.0, min(40.0, g[player] + step))
            moved = max(moved, abs(step))
        if moved < 1e-10:
            break
    found = {}
    for player in players:
        _, curvature = _derivatives(player, g, points[player], games[player])
        sigma = 0.0 if player in fixed else min(1 / math.sqrt(curvature) if curvature > 0 else MOST_SIGMA, MOST_SIGMA)
        found[player] = (g[player] * ELO, sigma * ELO)
    return found


def _derivatives(
    player: str, g: Mapping[str, float], points: Mapping[str, float], games: Mapping[str, float]
) -> tuple[float, float]:
    slope = curvature = 0.0
    for other, played in games.items():
        p = 1 / (1 + math.exp(g[other] - g[player]))
        slope += points[other] - played * p
        curvature += played * p * (1 - p)
    return slope, curvature
