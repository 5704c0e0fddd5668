"""One look at everything: what runs where, with what this very call has placed already counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta

from selfplay_orch.core.cluster import Lane, Node
from selfplay_orch.core.limits import spawn_rate_left
from selfplay_orch.core.picture import WorkPicture
from selfplay_orch.core.task import Task
from selfplay_orch.settings import Settings
from sparring.contracts.readings import Heartbeat
from sparring.decider import Context, Reading
from sparring.subjects import token

LEAST_LIVES = 3


class Look:
    """`taken` are running seats per node, `running` their number per kind, `lane_seats` those of self-play per lane."""

    def __init__(self, ctx: Context) -> None:
        self.ctx, self.now = ctx, ctx.now
        self.picture: WorkPicture = ctx.picture
        self.settings: Settings = ctx.settings
        self.all = self.picture.all
        self.taken: dict[str, dict[str, str]] = {}
        self.running: Counter[str] = Counter()
        self.lane_seats: Counter[str] = Counter()
        self.lane_kinds: Counter[tuple[str, str]] = Counter()
        self.alive: set[str] = set()
        self.waiting: list[tuple[str, Task]] = []
        self.spawned: Counter[str] = Counter()
        self.held: set[str] = set()
        self.said: set[tuple[str, str, str]] = set()
        self.placed = 0
        for name, task in self.all.tasks.items():
            if task.running and task.spec is not None:
                self._seat(f"{name}-{task.attempt}", task.node, task.spec.kind, task.spec.lane)
            elif task.state == "requested" and (task.retry_at is None or task.retry_at <= self.now):
                self.waiting.append((name, task))
        usable = [node for node in self.all.nodes.values() if node.usable]
        self.nodes = len(usable)
        self.seats: int = sum(node.seats for node in usable)

    def _seat(self, seat: str, node: str, kind: str, lane: str) -> None:
        self.taken.setdefault(node, {})[seat] = kind
        self.alive.add(seat)
        self.running[kind] += 1
        self.lane_kinds[kind, lane] += 1
        if kind == "selfplay":
            self.lane_seats[lane] += 1

    def place(self, seat: str, node: str, kind: str, lane: str) -> None:
        """Counts a placement of this call."""
        self._seat(seat, node, kind, lane)
        self.spawned[kind] += 1
        self.placed += 1

    @property
    def full(self) -> bool:
        return self.placed >= self.settings.most_a_call

    def ended(self, taken: Mapping[str, str]) -> tuple[str, ...]:
        """Seats whose task the picture saw end, or go elsewhere."""
        return tuple(seat for seat in taken if seat not in self.alive)

    # ---- limits

    @property
    def spawns_per_minute(self) -> int:
        by_seats = 2 * self.seats
        return max(by_seats, self.settings.spawns_per_minute)

    def spawns_left(self, kind: str) -> int:
        return spawn_rate_left(self.picture.quota(kind), self.now, self.spawns_per_minute) - self.spawned[kind]

    def cluster_limit(self, kind: str) -> int:
        rules = self.settings.kind(kind)
        return max(rules.cluster, int(rules.cluster_per_node * self.nodes))

    def most_seats(self, lane: Lane) -> int:
        """Self-play seats that back-pressure leaves the lane: factor × seats, at least one unless it stops."""
        factor = lane.factor("selfplay")
        return max(1, round(self.seats * factor)) if factor > 0 else 0

    # ---- readings

    def beat(self, node: str) -> Reading | None:
        reading = self.ctx.readings.get(f"tel.{token(node)}.heartbeat")
        return reading if reading is not None and isinstance(reading.data, Heartbeat) else None

    def heard_at(self, reading: Reading) -> datetime:
        return self.now - timedelta(seconds=reading.age_s)

    # ---- nodes

    def life_left(self, node: Node) -> float:
        """Seconds that an ephemeral node is expected to live on; infinite for others.

        A node that outlived the mean of the past ones still gets a quarter of it.
        """
        if not node.ephemeral or node.joined_at is None:
            return float("inf")
        lives = self.all.lives
        life = sum(lives) / len(lives) if len(lives) >= LEAST_LIVES else self.settings.ephemeral_life_s
        return max(life - (self.now - node.joined_at).total_seconds(), life / 4)

    def estimate(self, kind: str, lane: str, node: Node) -> tuple[float, float]:
        """Mean and p90 duration in seconds, with margin."""
        return self.picture.durations.estimate(kind, lane, node.node_class, self.settings.kind(kind).expected_s)
