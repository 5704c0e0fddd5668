"""How much of a lane's data a training looks at."""

from __future__ import annotations

SMALLEST = 250_000
EXPONENT = 0.65
EXPANSION = 0.4


def training_window(rows: int, scale: float = 1.0) -> int:
    """KataGo's window over n rows: m + x·(nᵉ − mᵉ)/(e·mᵉ⁻¹), m 250k × the lane's scale, e .65, x .4 (Wu 2019, app. C)."""
    m = SMALLEST * scale
    if rows <= m:
        return rows
    grown = EXPANSION * (float(rows) ** EXPONENT - m**EXPONENT) / (EXPONENT * m ** (EXPONENT - 1))
    return min(rows, round(m + float(grown)))
