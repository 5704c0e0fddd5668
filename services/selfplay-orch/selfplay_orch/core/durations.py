"""How long tasks take, and how many games a self-play task should hold: from what finished."""

from __future__ import annotations

import math
from typing import Any

KEPT = 50
LEAST = 3
MARGIN = 1.2
DEFAULTS_S = {
    "selfplay": 300.0,
    "train": 14_400.0,
    "tune": 3_600.0,
    "evaluate": 3_600.0,
    "transfer": 600.0,
    "export": 300.0,
}
MOST_GAMES = 100_000


class Durations:
    """The last finished tasks per (kind, lane, node class); self-play also keeps games per second."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}
        self._speeds: dict[str, list[float]] = {}

    def dump(self) -> Any:
        return {"seconds": self._seconds, "speeds": self._speeds}

    def load(self, data: Any) -> None:
        self._seconds, self._speeds = data["seconds"], data["speeds"]

    def note(self, kind: str, lane: str, node_class: str, seconds: float, games: int) -> None:
        known = self._seconds.setdefault(f"{kind} {lane} {node_class}", [])
        known.append(seconds)
        del known[:-KEPT]
        if kind == "selfplay" and games and seconds > 0:
            speeds = self._speeds.setdefault(f"{lane} {node_class}", [])
            speeds.append(games / seconds)
            del speeds[:-LEAST]

    def estimate(self, kind: str, lane: str, node_class: str) -> tuple[float, float]:
        """Mean and p90 of the last finished tasks × 1.2, in seconds; the kind's default with fewer than 3."""
        known = self._seconds.get(f"{kind} {lane} {node_class}", [])
        if len(known) < LEAST:
            default = DEFAULTS_S.get(kind, 3_600.0)
            return default, default
        ordered = sorted(known)
        p90 = ordered[min(len(ordered) - 1, math.ceil(0.9 * len(ordered)) - 1)]
        return MARGIN * sum(known) / len(known), MARGIN * p90

    def games_for(self, lane: str, node_class: str, seconds: float, guess: int) -> int:
        """Games that take about that long; the lane's guess until three tasks were measured."""
        speeds = self._speeds.get(f"{lane} {node_class}", [])
        if not speeds:
            return guess
        return max(1, min(MOST_GAMES, round(sum(speeds) / len(speeds) * seconds)))
