"""Bradley–Terry ratings with pinned anchors and a prior: P(i beats j) = 1/(1+e^(gⱼ−gᵢ)), a draw is half a win each."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

ELO = 400 / math.log(10)
PARENT_DRAWS = 4.0
ORPHAN_DRAWS = 0.01
MOST_SIGMA = 10.0
# of Newton's method: the farthest that a rating goes, when it is exact enough (in units of g), when it gives up
MOST_G, ENOUGH, LEAST_CURVATURE = 40.0, 1e-10, 1e-9
MOST_STEPS, MOST_HALVINGS = 200, 40
Rows = dict[str, dict[str, float]]
# a player that has one opponent left, that one, the points that it made, the games
Hung = tuple[str, str, float, float]


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
    The standard error is the root of the inverse information's diagonal, at most 10 in units of g. Taken alone,
    1/√(Σ n p(1−p)) would hold all others for known: a model that hundreds played against would look certain, though
    all of them hang on generation 0 by its one match. The outcome does not depend on the order of the results.
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
    hung = _hung(fixed, points, games)
    g, variances = _solve(players, fixed, points, games)
    for player, other, won, played in reversed(hung):
        g[player], apart = _beside(g[other], won, played)
        variances[player] = variances[other] + apart
    return {player: (g[player] * ELO, min(math.sqrt(variances[player]), MOST_SIGMA) * ELO) for player in players}


def _hung(fixed: set[str], points: Rows, games: Rows) -> list[Hung]:
    """Takes out, one after the other, whoever has a single opponent left: wherever that one stands, the best rating is as far
    from it as their games say, so it tells nothing of the others. Of a pool little else remains: it is nearly a tree."""
    waiting = [player for player in sorted(games) if player not in fixed and len(games[player]) == 1]
    found: list[Hung] = []
    for player in waiting:
        if len(games[player]) != 1:
            # its opponent was taken out first
            continue
        ((other, played),) = games[player].items()
        found.append((player, other, points[player][other], played))
        for table in (points, games):
            del table[player], table[other][player]
        if other not in fixed and len(games[other]) == 1:
            waiting.append(other)
    return found


def _beside(g: float, won: float, played: float) -> tuple[float, float]:
    """The rating of who won so much of so many against `g`, and what its variance is more."""
    if not 0 < won < played:
        return math.copysign(MOST_G, won - played / 2) if played else g, math.inf
    p = won / played
    return max(-MOST_G, min(MOST_G, g + math.log(p / (1 - p)))), 1 / (played * p * (1 - p))


def _solve(players: list[str], fixed: set[str], points: Rows, games: Rows) -> tuple[dict[str, float], dict[str, float]]:
    """Newton's method on the whole pool at once. Player by player, a cluster of hundreds that hangs on its anchor by a few
    games does not get there in thousands of rounds: each moves only as far as the others let it."""
    g = dict.fromkeys(players, 0.0)
    free = [player for player in players if player not in fixed and games.get(player)]
    known = _likelihood(g, points)
    for _ in range(MOST_STEPS):
        step = _step(free, g, points, games)
        largest = max(map(abs, step.values()), default=0.0)
        if largest < ENOUGH:
            break
        # bounded, so that 100 % scores stay finite; halved while it goes too far
        share = min(1.0, 2.0 / largest)
        for _ in range(MOST_HALVINGS):
            moved = g | {player: max(-MOST_G, min(MOST_G, g[player] + share * step[player])) for player in free}
            reached = _likelihood(moved, points)
            if reached >= known:
                break
            share /= 2
        else:
            # no better in either direction: as exact as floats are
            break
        g, known = moved, reached
    # nothing is known of who met nobody, or only those who hang on it
    unknown = {player: 0.0 if player in fixed else math.inf for player in players}
    return g, unknown | _variances(*_curvature(free, g, points, games)[:2])


def _likelihood(g: Mapping[str, float], points: Mapping[str, Mapping[str, float]]) -> float:
    """The logarithm of it: Σ points of i against j · ln P(i beats j)."""
    return math.fsum(-won * math.log1p(math.exp(g[other] - g[player]))
                     for player, against in points.items() for other, won in against.items() if won)  # fmt: skip


def _step(
    free: Sequence[str],
    g: Mapping[str, float],
    points: Mapping[str, Mapping[str, float]],
    games: Mapping[str, Mapping[str, float]],
) -> dict[str, float]:
    """How far Newton's method moves each free player: minus the inverse of the second derivatives times the first ones."""
    diagonal, rows, slopes = _curvature(free, g, points, games)
    order = _eliminated(diagonal, rows, slopes)
    found: dict[str, float] = {}
    for player in reversed(order):
        rest = sum(value * found[other] for other, value in rows[player].items())
        found[player] = (slopes[player] - rest) / diagonal[player]
    return found


def _curvature(
    free: Sequence[str],
    g: Mapping[str, float],
    points: Mapping[str, Mapping[str, float]],
    games: Mapping[str, Mapping[str, float]],
) -> tuple[dict[str, float], Rows, dict[str, float]]:
    """Minus the likelihood's second derivatives, diagonal and rest, and its slopes."""
    moving = set(free)
    diagonal: dict[str, float] = {}
    slopes: dict[str, float] = {}
    rows: Rows = {}
    for player in free:
        slopes[player], weights = _derivatives(player, g, points[player], games[player])
        diagonal[player] = sum(weights.values()) + LEAST_CURVATURE
        rows[player] = {other: -weight for other, weight in weights.items() if other in moving}
    return diagonal, rows, slopes


def _eliminated(diagonal: dict[str, float], rows: Rows, right: dict[str, float]) -> list[str]:
    """Gauss's elimination of a symmetric, positive definite system, in place; the order in which players left it.

    Those with the fewest opponents leave first (minimum degree): a pool is nearly a tree, each candidate with its
    baseline, so hardly anything is filled in. A player's row keeps those who were still there when it left.
    """
    waiting = [(len(row), player) for player, row in rows.items()]
    heapq.heapify(waiting)
    order: dict[str, None] = {}
    while waiting:
        degree, player = heapq.heappop(waiting)
        row = rows[player]
        if player in order or degree != len(row):
            continue
        order[player] = None
        for other, value in row.items():
            factor, others = value / diagonal[player], rows[other]
            diagonal[other] -= factor * value
            right[other] -= factor * right[player]
            del others[player]
            for third, entry in row.items():
                if third != other:
                    others[third] = others.get(third, 0.0) - factor * entry
            heapq.heappush(waiting, (len(others), other))
    return list(order)


def _variances(diagonal: dict[str, float], rows: Rows) -> dict[str, float]:
    """The diagonal of the inverse, each player's variance with all others free to move: what it knows of itself, and
    what those do whom it met. Only entries that the elimination touched are needed (Takahashi, Fagan and Chen 1973)."""
    order = _eliminated(diagonal, rows, dict.fromkeys(diagonal, 0.0))
    inverse: Rows = {player: {} for player in order}
    for player in reversed(order):
        shares = {other: value / diagonal[player] for other, value in rows[player].items()}
        for other in shares:
            entry = -sum(share * inverse[third][other] for third, share in shares.items())
            inverse[player][other] = inverse[other][player] = entry
        inverse[player][player] = 1 / diagonal[player] - sum(
            share * inverse[player][other] for other, share in shares.items()
        )
    return {player: row[player] for player, row in inverse.items()}


def _derivatives(
    player: str, g: Mapping[str, float], points: Mapping[str, float], games: Mapping[str, float]
) -> tuple[float, dict[str, float]]:
    """The likelihood's slope in the player's rating, and what each opponent adds to its curvature."""
    slope, weights = 0.0, dict[str, float]()
    for other, played in games.items():
        p = 1 / (1 + math.exp(g[other] - g[player]))
        slope += points[other] - played * p
        weights[other] = played * p * (1 - p)
    return slope, weights
