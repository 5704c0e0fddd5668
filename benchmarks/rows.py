"""What a benchmark says: a figure, beside the limit that was taken in the same run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One figure. `reference` is the peer's figure in the same unit, `beside` says which peer; `ratio` is figure/reference.

    `target` is what the figure should be, in words; `met` is None where there is no target.
    """

    name: str
    figure: float
    unit: str
    reference: float | None = None
    beside: str = ""
    ratio: float | None = None
    target: str = ""
    met: bool | None = None


def plain(name: str, figure: float, unit: str) -> Row:
    """A figure without a target."""
    return Row(name, figure, unit)


def at_most(name: str, figure: float, unit: str, most: float) -> Row:
    return Row(name, figure, unit, target=f"≤ {most:g} {unit}", met=figure <= most)


def ratio_of(
    name: str, figure: float, unit: str, reference: float, beside: str, *, least: float = 0.0, most: float = 0.0
) -> Row:
    """A figure that is judged by its ratio to the peer's: at least `least` or at most `most` of it; 0 judges nothing."""
    ratio = figure / reference if reference else 0.0
    if least:
        return Row(name, figure, unit, reference, beside, ratio, f"≥ {least:g} of it", ratio >= least)
    if most:
        return Row(name, figure, unit, reference, beside, ratio, f"≤ {most:g} of it", ratio <= most)
    return Row(name, figure, unit, reference, beside, ratio)
