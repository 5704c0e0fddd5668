"""Entities that fit on a page together: queues, the cluster's switch, the score, alarms, the watch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sparring.contracts.base import Fact
from sparring.contracts.health import (
    AlarmCleared,
    AlarmRaised,
    BackpressureChanged,
    ClusterSwitched,
    HealthScored,
    ObservationLost,
    ObservationRegained,
    Switch,
    SwitchCluster,
    SwitchRefused,
)
from sparring.contracts.parts import Level
from sparring.decider import Context, Decider, Recorded


@dataclass(frozen=True)
class Queue:
    level: Level = "none"


def evolve_queue(queue: Queue, recorded: Recorded) -> Queue:
    match recorded.fact:
        case BackpressureChanged(level=level):
            return Queue(level)
    return queue


QUEUE = Decider("health", "queue", Queue(), evolve_queue)


@dataclass(frozen=True)
class Cluster:
    state: Switch = "running"
    revision: int = 0
    by: str = ""


def evolve_cluster(cluster: Cluster, recorded: Recorded) -> Cluster:
    match recorded.fact:
        case ClusterSwitched(state=state, revision=revision, by=by):
            return Cluster(state, revision, by)
    return cluster


CLUSTER = Decider("health", "cluster", Cluster(), evolve_cluster)


def switch(order: SwitchCluster, cluster: Cluster, ctx: Context) -> list[Fact]:  # noqa: ARG001
    """An older revision than the newest is refused: orders that undo each other arrive in any order."""
    if order.revision < cluster.revision:
        return [SwitchRefused(revision=order.revision, newest=cluster.revision, by=order.by)]
    if order.state == cluster.state:
        return []
    return [
        ClusterSwitched(
            state=order.state, before=cluster.state, revision=order.revision, by=order.by, reason=order.reason
        )
    ]


@dataclass(frozen=True)
class Score:
    value: float = -1.0
    grade: str = ""
    at: datetime | None = None


def evolve_score(score: Score, recorded: Recorded) -> Score:
    match recorded.fact:
        case HealthScored(value=value, grade=grade):
            return Score(value, grade, recorded.at)
    return score


SCORE = Decider("health", "score", Score(), evolve_score)


@dataclass(frozen=True)
class Alarm:
    raised: bool = False
    times: int = 0
    at: datetime | None = None


def evolve_alarm(alarm: Alarm, recorded: Recorded) -> Alarm:
    match recorded.fact:
        case AlarmRaised(times=times):
            return Alarm(True, times, recorded.at)
        case AlarmCleared():
            return replace(alarm, raised=False)
    return alarm


ALARM = Decider("health", "alarm", Alarm(), evolve_alarm)


@dataclass(frozen=True)
class Watching:
    lost_until: datetime | None = None


def evolve_watch(watching: Watching, recorded: Recorded) -> Watching:
    match recorded.fact:
        case ObservationLost(until=until):
            return Watching(until)
        case ObservationRegained():
            return Watching()
    return watching


WATCH = Decider("health", "watch", Watching(), evolve_watch)
