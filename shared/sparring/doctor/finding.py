"""What a check returns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

SEVERITIES = ("note", "warning", "critical")


@dataclass(frozen=True)
class Finding:
    """Something that differs from what it should be, and what to do about it."""

    severity: Literal["note", "warning", "critical"]
    about: str
    text: str
    remedy: str


def exit_code(found: Iterable[Finding]) -> int:
    """0: well, notes included; 1: at least one warning; 2: at least one critical finding."""
    return max((SEVERITIES.index(one.severity) for one in found), default=0)
