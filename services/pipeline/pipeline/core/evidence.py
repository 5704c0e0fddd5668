"""What a program says of its own export, checked before anything is computed with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# more positions than any lane will ever have, and exact as a float
MOST = 1e15


class IllShaped(ValueError):
    """A field of the evidence is not what it has to be; the message names the field and the value."""


@dataclass(frozen=True)
class Exported:
    """How many positions, which share of them has each target, and which share occurs twice."""

    positions: int
    coverage: dict[str, float]
    duplicates: float


def exported(evidence: Mapping[str, Any]) -> Exported:
    """Raises IllShaped."""
    coverage = evidence["coverage"]
    if not isinstance(coverage, Mapping):
        raise IllShaped(f"coverage = {shown(coverage)} is no table of shares by target")
    positions = number("positions", evidence["positions"])
    if positions != int(positions):
        raise IllShaped(f"positions = {positions} is no count")
    shares = {str(name): number(f"coverage.{name}", value) for name, value in coverage.items()}
    return Exported(int(positions), shares, number("duplicates", evidence.get("duplicates", 0.0)))


def number(name: str, value: Any) -> float:
    """A number that is not negative and not endless: NaN and infinity would be null in a fact."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST:
        raise IllShaped(f"{name} = {shown(value)} is no number from 0 to {MOST:.0e}")
    return float(value)


def shown(value: Any) -> str:
    """A value of unknown size, as far as a reason has room for it."""
    return repr(value)[:80]
