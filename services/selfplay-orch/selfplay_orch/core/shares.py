"""What each lane gets of the self-play seats: a score with every term named, momentum, boost, quota."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from selfplay_orch.core.picture import Lane
from sparring.contracts.parts import Term
from sparring.contracts.selfplay_orch import LaneShare

FEW_GAMES = 100
QUOTA = 0.30
MOMENTUM = {"accelerating": 1.5, "improving": 1.25, "plateau": 1.1, "stable": 1.0, "regressing": 0.75}


def clamp(value: float) -> float:
    return min(1.0, max(0.0, value))


def terms_of(lane: Lane, now: datetime) -> tuple[Term, ...]:
    """The score's terms, each with its weight applied."""
    since = lane.last_games_at or lane.registered_at or now
    hours = max(0.0, (now - since).total_seconds()) / 3600
    wanted = lane.spec.iteration.min_positions if lane.spec else 1
    deficit = clamp(1 - (lane.positions - lane.consumed) / wanted)
    promoted = sum(lane.verdicts) / len(lane.verdicts) if lane.verdicts else 0.0
    named = {
        "staleness": 0.30 * clamp(hours / 4),
        "data deficit": 0.25 * deficit,
        "Elo velocity": 0.20 * clamp(elo_per_day(lane, now) / 100),
        "improvement": 0.15 * promoted,
        "training": 0.10 * lane.training,
        "exploration": 0.10 / (1 + lane.iterations) ** 0.5,
        "curriculum": 0.10 * (lane.weight - 0.5) / 1.5,
        "quality penalty": -0.20 * (1 - lane.quality),
    }
    return tuple(Term(name=name, value=round(value, 6)) for name, value in named.items())


def elo_per_day(lane: Lane, now: datetime) -> float:
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


def shares(lanes: Mapping[str, Lane], now: datetime) -> tuple[LaneShare, ...]:
    """Shares that add up to 1. Lanes with few games first; none above its quota unless nobody else wants the seats."""
    if not lanes:
        return ()
    scored: dict[str, tuple[float, tuple[Term, ...]]] = {}
    for name, lane in lanes.items():
        terms = terms_of(lane, now)
        boosted = lane.boost.factor if lane.boost.until is not None and lane.boost.until > now else 1.0
        mood = MOMENTUM[momentum(lane)]
        first = 10.0 if lane.games < FEW_GAMES else 1.0
        value = max(0.01, sum(term.value for term in terms)) * mood * boosted * first
        more = (("momentum", mood), ("boost", boosted), ("few games", first), ("back-pressure", lane.factor))
        extra = tuple(Term(name=label, value=number) for label, number in more)
        scored[name] = value, (*terms, *extra)
    quota = QUOTA if len(lanes) >= 4 else 1 / len(lanes)
    split = capped({name: value for name, (value, _) in scored.items()}, max(quota, 1 / len(lanes)))
    return tuple(
        LaneShare(lane=name, share=round(split[name], 4), score=round(value, 6), terms=terms)
        for name, (value, terms) in sorted(scored.items())
    )


def capped(scores: Mapping[str, float], quota: float) -> dict[str, float]:
    """Proportional shares with none above the quota; what is cut off goes to the others."""
    left, free = 1.0, dict(scores)
    result: dict[str, float] = {}
    while free:
        total = sum(free.values())
        over = {name for name, value in free.items() if left * value / total > quota + 1e-12}
        if not over or len(over) == len(free):
            part = {name: left * value / total if not over else left / len(free) for name, value in free.items()}
            return result | part
        for name in over:
            result[name] = quota
            left -= quota
            del free[name]
    return result
