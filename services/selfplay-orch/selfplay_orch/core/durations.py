"""How long tasks take, and how many games a self-play task should hold: from what finished."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

KEPT = 50
LEAST = 3
MARGIN = 1.2
MOST_GAMES = 100_000


class Durations:
    """The last finished tasks per (kind, lane, node class); self-play also keeps its games and seconds."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}
        self._played: dict[str, list[tuple[int, float]]] = {}

    def dump(self) -> Any:
        return {"seconds": self._seconds, "played": self._played}

    def load(self, data: Mapping[str, Any]) -> None:
        self._seconds = {name: list(known) for name, known in data["seconds"].items()}
        self._played = {name: [(int(n), float(s)) for n, s in known] for name, known in data["played"].items()}

    def note(self, kind: str, lane: str, node_class: str, seconds: float, games: int) -> None:
        known = self._seconds.setdefault(f"{kind} {lane} {node_class}", [])
        known.append(seconds)
        del known[:-KEPT]
        if kind == "selfplay" and games > 0 and seconds > 0:
            played = self._played.setdefault(f"{lane} {node_class}", [])
            played.append((games, seconds))
            del played[:-LEAST]

    def measured(self, kind: str, lane: str, node_class: str) -> int:
        """How many finished tasks an estimate would rest on; below 3 it is the kind's default."""
        return len(self._seconds.get(f"{kind} {lane} {node_class}", []))

    def estimate(self, kind: str, lane: str, node_class: str, default_s: float) -> tuple[float, float]:
        """Mean and p90 of the last finished tasks × 1.2, in seconds; the kind's default with fewer than 3."""
        known = self._seconds.get(f"{kind} {lane} {node_class}", [])
        if len(known) < LEAST:
            return default_s, default_s
        ordered = sorted(known)
        p90 = ordered[math.ceil(0.9 * len(ordered)) - 1]
        return MARGIN * sum(known) / len(known), MARGIN * p90

    def games_for(self, lane: str, node_class: str, seconds: float, guess: int) -> int:
        """Games that take about that long, in [1, 100000]; the lane's own guess until one task was measured."""
        played = self._played.get(f"{lane} {node_class}", [])
        if not played:
            return max(1, min(MOST_GAMES, guess))
        games, took = sum(n for n, _ in played), sum(s for _, s in played)
        return max(1, min(MOST_GAMES, round(games / took * seconds)))
