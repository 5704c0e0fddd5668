"""Pauses that grow with every failure."""

from __future__ import annotations

# more doublings than any pause here needs to reach its end, few enough for a float
MOST_DOUBLINGS = 64


def doubled_s(first_s: float, times: int, most_s: float) -> float:
    """`first_s` doubled so many times, in seconds, at most `most_s`; what fails for weeks doubles no further."""
    return min(most_s, first_s * 2.0 ** min(times, MOST_DOUBLINGS))
