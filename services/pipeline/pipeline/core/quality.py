"""Is the data good enough to train on: coverage, duplicates, decisive share and length, each in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping

from sparring.contracts.lanes import QualityRules
from sparring.contracts.parts import Term


def clamp(value: float) -> float:
    return min(1.0, max(0.0, value))


def in_band(value: float | None, low: float, high: float) -> float:
    """1 inside the band, falling to 0 at twice its distance; an unknown value counts as inside."""
    if value is None or low <= value <= high:
        return 1.0
    edge = low if value < low else high
    return clamp(1 - abs(value - edge) / max(abs(edge), 1e-9))


def quality(
    coverage: Mapping[str, float], duplicates: float, decisive: float | None, plies: float | None, rules: QualityRules
) -> tuple[float, tuple[Term, ...]]:
    """The mean of the four parts, and the parts with what they are compared to."""
    policy = coverage.get("policy", 0.0)
    parts = (
        clamp(policy),
        clamp(1 - duplicates / 0.1),
        in_band(decisive, rules.decisive_low, rules.decisive_high),
        in_band(plies, rules.plies_low, rules.plies_high),
    )
    value = sum(parts) / len(parts)
    terms = (
        Term(name="quality", value=value, limit=rules.min_quality),
        Term(name="policy coverage", value=policy, limit=rules.min_coverage),
        Term(name="duplicates", value=duplicates, limit=rules.max_duplicates),
    )
    return value, terms


def good_enough(terms: tuple[Term, ...]) -> bool:
    value, coverage, duplicates = terms
    return (
        value.value >= (value.limit or 0)
        and coverage.value >= (coverage.limit or 0)
        and duplicates.value <= (duplicates.limit or 0)
    )
