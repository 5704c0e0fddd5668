"""One look at everything: what runs where, with what this very call has placed already counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
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
JUST_AFTER = timedelta(milliseconds=1)


class Taken:
    """Running seats per node: the index's, and over them the nodes on which this call has placed."""

    def __init__(self, known: Mapping[str, dict[str, str]]) -> None:
        self._known = known
        self.placed: dict[str, dict[str, str]] = {}

    def get(self, node: str, default: Mapping[str, str] | None = None) -> Mapping[str, str]:
        found = self.placed.get(node)
        if found is None:
            found = self._known.get(node)
        return found if found is not None else default or {}

    def place(self, node: str, seat: str, kind: str) -> None:
        if node not in self.placed:
            self.placed[node] = dict(self._known.get(node, {}))
        self.placed[node][seat] = kind


class Look:
    """`taken` are running seats per node, `running` their number per kind, `lane_seats` those of self-play per lane;
    `listened_s` is for how long this process could have heard a node."""

    def __init__(self, ctx: Context) -> None:
        self.ctx, self.now = ctx, ctx.now
        self.picture: WorkPicture = ctx.picture
        self.settings: Settings = ctx.settings
        self.all = self.picture.all
        self.index = self.picture.index
        self.taken = Taken(self.index.taken)
        self.running: Counter[str] = self.index.running.copy()
        self.lane_seats: Counter[str] = self.index.lane_seats.copy()
        self.lane_kinds: Counter[tuple[str, str]] = self.index.lane_kinds.copy()
        self.spawned: Counter[str] = Counter()
        self.held: set[str] = set()
        self.said: set[tuple[str, str, str]] = set()
        self.placed = 0
        self.nodes = len(self.index.usable)
        self.seats: int = self.index.seats
        self.listened_s = min(ctx.watch.connected_s, ctx.watch.started_s)
        self._left: dict[str, int] = {}
        self._beats: dict[str, Reading | None] = {}

    @property
    def waiting(self) -> list[tuple[str, Task]]:
        """What waits for a seat and may have one now."""
        return [(name, task) for name, task in self.index.waiting.items() if self.may_start(task)]

    def may_start(self, task: Task) -> bool:
        return task.retry_at is None or task.retry_at <= self.now

    def place(self, seat: str, node: str, kind: str, lane: str) -> None:
        """Counts a placement of this call."""
        self.taken.place(node, seat, kind)
        self.running[kind] += 1
        self.lane_kinds[kind, lane] += 1
        if kind == "selfplay":
            self.lane_seats[lane] += 1
        self.spawned[kind] += 1
        self.placed += 1

    @property
    def full(self) -> bool:
        return self.placed >= self.settings.most_a_call

    def ended(self, taken: Mapping[str, str]) -> tuple[str, ...]:
        """Seats whose task the picture saw end, or go elsewhere."""
        return tuple(seat for seat in taken if seat not in self.index.alive)

    # ---- deadlines

    def due(self) -> Iterator[tuple[str, Task]]:
        """Open tasks whose ending has to be looked at now."""
        for name in self.index.due(self.now, self.all.tasks, self._next_at):
            yield name, self.all.tasks[name]

    def _next_at(self, task: Task) -> datetime:
        """When the task is looked at next, if nothing happens to it, its node or its lane before."""
        settings, since = self.settings, task.since or self.now
        again = self.now + timedelta(seconds=settings.look_up_s)
        if task.state == "requested":
            until = task.expires_at or since + timedelta(seconds=settings.wait_s)
            moments = [until, again]
        else:
            over_s = (task.spec.timeout_s if task.spec else 0.0) + settings.grace_s
            lease = since + timedelta(seconds=settings.lease_s)
            moments = [since + timedelta(seconds=over_s), lease if lease > self.now else again]
            if task.state == "assigned":
                moments.append(since + timedelta(seconds=settings.start_s))
                if self.listened_s <= settings.beat_fresh_s:
                    moments.append(self.now + timedelta(seconds=settings.beat_fresh_s))
        blind = self.all.blind_until
        if blind is not None and blind > self.now:
            moments.append(blind)
        later = [moment + JUST_AFTER for moment in moments if moment >= self.now]
        return min(later, default=self.now)

    # ---- limits

    @property
    def spawns_per_minute(self) -> int:
        by_seats = 2 * self.seats
        return max(by_seats, self.settings.spawns_per_minute)

    def spawns_left(self, kind: str) -> int:
        if kind not in self._left:
            self._left[kind] = spawn_rate_left(self.picture.quota(kind), self.now, self.spawns_per_minute)
        return self._left[kind] - self.spawned[kind]

    def cluster_limit(self, kind: str) -> int:
        rules = self.settings.kind(kind)
        return max(rules.cluster, int(rules.cluster_per_node * self.nodes))

    def most_seats(self, lane: Lane) -> int:
        """Self-play seats that back-pressure leaves the lane: factor × seats, at least one unless it stops."""
        factor = lane.factor("selfplay")
        return max(1, round(self.seats * factor)) if factor > 0 else 0

    # ---- readings

    def beat(self, node: str) -> Reading | None:
        if node not in self._beats:
            reading = self.ctx.readings.get(f"tel.{token(node)}.heartbeat")
            self._beats[node] = reading if reading is not None and isinstance(reading.data, Heartbeat) else None
        return self._beats[node]

    def fresh(self, node: str) -> Reading | None:
        """The node's last beat, if it is not too old to count."""
        beat = self.beat(node)
        return beat if beat is not None and beat.age_s <= self.settings.reading_known_s else None

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
