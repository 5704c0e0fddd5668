"""What each lane gets of the self-play seats: a score with every term named, momentum, boost, quota."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from selfplay_orch.core.cluster import Lane
from sparring.contracts.parts import Term
from sparring.contracts.selfplay_orch import LaneShare

FEW_GAMES = 100
QUOTA = 0.30
LEAST_SCORE = 0.01
MOMENTUM = {"accelerating": 1.5, "improving": 1.25, "plateau": 1.1, "stable": 1.0, "regressing": 0.75}


def clamp(value: float) -> float:
    return min(1.0, max(0.0, value))


def quota(lanes: int) -> float:
    """The most that one of that many lanes gets while others want the seats."""
    return QUOTA if lanes >= 4 else 1 / max(1, lanes)


def terms_of(lane: Lane, now: datetime) -> dict[str, float]:
    """The score's terms, each with its weight applied."""
    since = lane.last_games_at or lane.registered_at or now
    hours = max(0.0, (now - since).total_seconds()) / 3600
    promoted = sum(lane.verdicts) / len(lane.verdicts) if lane.verdicts else 0.0
    return {
        "staleness": 0.30 * clamp(hours / 4),
        "data deficit": 0.25 * deficit(lane),
        "Elo velocity": 0.20 * clamp(elo_per_day(lane, now) / 100),
        "improvement": 0.15 * promoted,
        "training": 0.10 * lane.training,
        "exploration": 0.10 / (1 + lane.iterations) ** 0.5,
        "curriculum": 0.10 * (lane.weight - 0.5) / 1.5,
        "quality penalty": -0.20 * (1 - lane.quality),
    }


def deficit(lane: Lane) -> float:
    """What the open iteration still lacks, in [0, 1]: of games or of positions, whichever lacks more."""
    if lane.spec is None:
        return 0.0
    rules = lane.spec.iteration
    games = (lane.games - lane.games_before) / rules.min_new_games
    positions = (lane.positions - lane.positions_before) / rules.min_positions
    return clamp(1 - min(games, positions))


def elo_per_day(lane: Lane, now: datetime) -> float:
    """Elo gained by promotions of the last 24 h, per day."""
    recent = [(at, gain) for at, gain in lane.elo_gains if (now - at).total_seconds() < 86_400]
    if not recent:
        return 0.0
    days = max((now - recent[0][0]).total_seconds() / 86_400, 1 / 24)
    return sum(gain for _, gain in recent) / days


def momentum(lane: Lane) -> str:
    """From the last verdicts: are promotions becoming more frequent, steady, or absent."""
    verdicts = lane.verdicts
    if len(verdicts) < 4:
        return "stable"
    half = len(verdicts) // 2
    before, after = sum(verdicts[:half]) / half, sum(verdicts[half:]) / (len(verdicts) - half)
    if after > before and after > 0.5:
        return "accelerating"
    if after >= 0.5:
        return "improving"
    if after == 0 and before == 0:
        return "plateau"
    return "regressing" if after < before else "stable"


def scores(lanes: Mapping[str, Lane], now: datetime) -> dict[str, float]:
    """Every lane's score, with its momentum and boost."""
    return {
        name: max(LEAST_SCORE, sum(round(one, 6) for one in terms_of(lane, now).values()))
        * MOMENTUM[momentum(lane)]
        * lane.boost.now(now)
        for name, lane in lanes.items()
    }


def split(lanes: Mapping[str, Lane], scored: Mapping[str, float]) -> dict[str, float]:
    """Shares of all lanes; those that want seats add up to 1, the others have 0.

    None is above its quota: the fair order gives it more only while nobody else wants the seats.
    """
    wanting = {name: score for name, score in scored.items() if lanes[name].wants}
    parts = capped(wanting, quota(len(wanting)))
    return {name: round(parts.get(name, 0.0), 4) for name in sorted(scored)}


def shares(lanes: Mapping[str, Lane], now: datetime) -> tuple[LaneShare, ...]:
    """Each lane's share with the score that it follows from, every term of it named."""
    scored = scores(lanes, now)
    return tuple(
        LaneShare(lane=name, share=share, score=round(scored[name], 6), terms=_named(lanes[name], now))
        for name, share in split(lanes, scored).items()
    )


def _named(lane: Lane, now: datetime) -> tuple[Term, ...]:
    return (
        *(Term(name=name, value=round(value, 6)) for name, value in terms_of(lane, now).items()),
        Term(name="momentum", value=MOMENTUM[momentum(lane)]),
        Term(name="boost", value=lane.boost.now(now)),
        Term(name="games", value=lane.games, limit=FEW_GAMES),
        Term(name="back-pressure", value=lane.factor("selfplay")),
        Term(name="wants seats", value=float(lane.wants)),
    )


def capped(scores: Mapping[str, float], most: float) -> dict[str, float]:
    """Proportional shares with none above `most`; what is cut off goes to the others."""
    left, free = 1.0, dict(scores)
    result: dict[str, float] = {}
    while free:
        total = sum(free.values())
        over = [name for name, value in free.items() if left * value / total > most + 1e-12]
        if not over:
            return result | {name: left * value / total for name, value in free.items()}
        if len(over) == len(free):
            return result | {name: left / len(free) for name in free}
        for name in over:
            result[name] = most
            left -= most
            del free[name]
    return result
