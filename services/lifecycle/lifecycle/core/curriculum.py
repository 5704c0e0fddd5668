"""How much a lane needs to be played: more while it loses or stands still, less when it has just improved."""

from __future__ import annotations

from collections.abc import Sequence

from sparring.contracts.parts import Term

LOW, HIGH = 0.5, 2.0


def weight(
    score: float | None, games: int, elo_steps: Sequence[float], *, has_model: bool, promoted: bool, stale: bool = False
) -> tuple[float, tuple[Term, ...]]:
    """The weight in [.5, 2] and its terms. `score` is the candidate's share of the points in its gate."""
    base = 1 + (0.55 - score) * 2 if score is not None and games >= 10 else 1.0
    base = min(HIGH, max(LOW, base))
    model = 1.2 if has_model else 1.5
    trend = _trend(elo_steps)
    late = 1.1 if stale else 1.0
    shift = -0.1 if promoted else 0.15
    value = min(HIGH, max(LOW, base * model * trend * late + shift))
    named = {"win rate": base, "model": model, "Elo trend": trend, "stale": late, "verdict": shift}
    return value, tuple(Term(name=name, value=one) for name, one in named.items())


def _trend(steps: Sequence[float]) -> float:
    if len(steps) < 4:
        return 1.0
    half = len(steps) // 2
    before, after = sum(steps[:half]) / half, sum(steps[half:]) / (len(steps) - half)
    if abs(after - before) < 5:
        return 1.0
    return 1.2 if after > before else 0.9
