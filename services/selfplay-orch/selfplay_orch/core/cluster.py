"""Nodes and lanes as the planner knows them, and the breakers that health opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from selfplay_orch.core.limits import Boost
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.parts import THROTTLED_BY, Artifact

VERDICTS_KEPT = 10


@dataclass
class Breaker:
    """What health said of it: open before `until`, then one trial at a time, whether health is there or not."""

    failures: int = 0
    limit: int = 0
    until: datetime | None = None


@dataclass
class Node:
    boot: str = ""
    state: str = "lost"
    draining: bool = False
    seats: int = 0
    kinds: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    cores: float = 1.0
    ephemeral: bool = False
    joined_at: datetime | None = None
    changed_at: datetime | None = None
    failed_at: datetime | None = None
    breaker: Breaker = field(default_factory=Breaker)

    @property
    def usable(self) -> bool:
        return self.state == "healthy"

    @property
    def node_class(self) -> str:
        """Nodes alike enough to share durations."""
        return f"{len(self.gpus)}x {self.gpus[0]}" if self.gpus else f"cpu{round(self.cores)}"


@dataclass
class Lane:
    """`played` are games that self-play reported, `games` and `positions` those admitted; `served` is the lane's place in
    the fair order of self-play; `waiting` are the Elo gains of gates whose models wait for a person."""

    spec: LaneSpec | None = None
    paused: bool = False
    iteration: str = ""
    games_before: int = 0
    positions_before: int = 0
    iterations: int = 0
    training: bool = False
    model: Artifact | None = None
    played: int = 0
    games: int = 0
    positions: int = 0
    last_games_at: datetime | None = None
    registered_at: datetime | None = None
    verdicts: tuple[bool, ...] = ()
    elo_gains: tuple[tuple[datetime, float], ...] = ()
    gates: tuple[str, ...] = ()
    gate_at: datetime | None = None
    weight: float = 1.0
    quality: float = 1.0
    pressure: dict[str, float] = field(default_factory=dict)
    boost: Boost = field(default_factory=Boost)
    served: float = 0.0
    breakers: dict[str, Breaker] = field(default_factory=dict)
    waiting: dict[str, float] = field(default_factory=dict)

    def judged(self, at: datetime, gain: float, *, passed: bool) -> None:
        self.verdicts = (*self.verdicts, passed)[-VERDICTS_KEPT:]
        self.elo_gains = (*self.elo_gains, (at, gain))[-VERDICTS_KEPT:]

    def factor(self, kind: str) -> float:
        """The strictest back-pressure on the kind, in [0, 1]; 0 stops it."""
        return min((self.pressure.get(name, 1.0) for name in THROTTLED_BY.get(kind, ())), default=1.0)

    @property
    def plays(self) -> bool:
        """Whether self-play may serve it at all, whatever the back-pressure."""
        spec = self.spec
        return spec is not None and spec.enabled and not self.paused and "selfplay" in spec.commands

    @property
    def wants(self) -> bool:
        return self.plays and bool(self.iteration) and self.factor("selfplay") > 0
