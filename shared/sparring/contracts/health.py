"""The published language of `health`: nodes, queues, the cluster's switch, alarms and dead letters."""

from __future__ import annotations

from typing import Literal

from sparring.contracts.base import Count, Fact, Field, Instant, Name, Order, Seconds
from sparring.contracts.parts import Level, Term

NodeState = Literal["joined", "healthy", "suspected", "lost", "draining", "drained", "incompatible"]
Switch = Literal["running", "paused", "draining", "halted"]
Letter = Literal["pending", "redriven", "recovered", "abandoned", "discarded"]


class _Node(Fact):
    node: Name


class NodeJoined(_Node, owner="health", entity="node", key="node"):
    boot: Name
    build: str
    compatible: bool
    ephemeral: bool
    tags: tuple[str, ...]
    kinds: tuple[str, ...]
    machine: str
    cores: float
    memory_bytes: Count
    gpus: tuple[str, ...]
    seats: Count


class NodeSuspected(_Node, owner="health", entity="node", key="node"):
    boot: Name
    silent_s: Seconds
    limit_s: Seconds


class NodeRecovered(_Node, owner="health", entity="node", key="node"):
    boot: Name
    silent_s: Seconds


class NodeLost(_Node, owner="health", entity="node", key="node"):
    boot: Name
    reason: Literal["silent", "rebooted", "retired"]
    silent_s: Seconds
    limit_s: Seconds


class NodeDraining(_Node, owner="health", entity="node", key="node"):
    boot: Name
    reason: str
    by: Name
    grace_s: Seconds


class NodeDrained(_Node, owner="health", entity="node", key="node"):
    boot: Name


class CapacityRetargeted(_Node, owner="health", entity="node", key="node"):
    """How many seats the node may use now."""

    seats: Count
    before: Count
    terms: tuple[Term, ...]


class ObservationLost(Fact, owner="health", entity="watch", key="watch"):
    """Too many fell silent at once to be their own fault: nothing is orphaned for a while."""

    watch: Name = "main"
    silent: Count
    nodes: Count
    until: Instant


class ObservationRegained(Fact, owner="health", entity="watch", key="watch"):
    watch: Name = "main"


class BackpressureChanged(Fact, owner="health", entity="queue", key="queue"):
    """`queue` is `<lane>-<name>`: training-data, pending-games, evaluation, promotion, sync, export."""

    queue: Name
    lane: Name
    name: Name
    level: Level
    before: Level
    factor: float
    depth: float | None
    soft: float
    hard: float
    age_s: Seconds


class ClusterSwitched(Fact, owner="health", entity="cluster", key="cluster"):
    cluster: Name = "main"
    state: Switch
    before: Switch
    revision: Count
    by: Name
    reason: str


class SwitchRefused(Fact, owner="health", entity="cluster", key="cluster"):
    cluster: Name = "main"
    revision: Count
    newest: Count
    by: Name


class HealthScored(Fact, owner="health", entity="score", key="score"):
    score: Name = "main"
    value: float
    grade: Literal["healthy", "degraded", "unhealthy", "critical"]
    before: str
    terms: tuple[Term, ...]


class AlarmRaised(Fact, owner="health", entity="alarm", key="alarm"):
    """One cause, one alarm; repeated at most once an hour, and cleared."""

    alarm: Name
    about: Name
    severity: Literal["note", "warning", "critical"]
    text: str
    remedy: str
    times: Count = 1


class AlarmCleared(Fact, owner="health", entity="alarm", key="alarm"):
    alarm: Name
    about: Name


class DeadLetterRecorded(Fact, owner="health", entity="dead-letter", key="letter"):
    letter: Name = Field(description="<consumer>-<stream>-<sequence>")
    consumer: Name
    stream: Name
    stream_sequence: Count
    subject: str
    message_type: str
    cause: Literal["max_deliver", "terminated", "reconciled"]
    transient: bool
    reason: str
    exception: str
    fingerprint: Name
    deliveries: Count
    trace: str
    due_at: Instant | None
    build: str = Field(default="", description="what the consumer's service ran when it gave up")


class DeadLetterRedriven(Fact, owner="health", entity="dead-letter", key="letter"):
    letter: Name
    by: Name
    attempt: Count
    due_at: Instant | None
    forced: bool = Field(default=False, description="obeyed although it had expired")
    reason: str = Field(default="", description="why it went by itself; empty by hand")
    build: str = Field(default="", description="what the consumer's service runs now")


class DeadLetterRecovered(Fact, owner="health", entity="dead-letter", key="letter"):
    letter: Name


class DeadLetterFailedAgain(Fact, owner="health", entity="dead-letter", key="letter"):
    letter: Name
    reason: str
    attempt: Count
    due_at: Instant | None


class DeadLetterAbandoned(Fact, owner="health", entity="dead-letter", key="letter"):
    letter: Name
    attempts: Count


class DeadLetterDiscarded(Fact, owner="health", entity="dead-letter", key="letter"):
    letter: Name
    by: Name
    reason: str


class DeadLetterOrderRefused(Fact, owner="health", entity="dead-letter", key="letter"):
    letter: Name
    order: Name
    reason: str


class DrainNode(Order, owner="health", entity="node", key="node"):
    node: Name
    by: Name
    reason: str
    grace_s: Seconds = 60.0


class SwitchCluster(Order, owner="health", entity="cluster", key="cluster"):
    cluster: Name = "main"
    state: Switch
    revision: Count
    by: Name
    reason: str = ""


class RecordDeadLetter(Order, owner="health", entity="dead-letter", key="letter"):
    letter: Name
    consumer: Name
    stream: Name
    stream_sequence: Count
    subject: str
    message_type: str
    cause: Literal["max_deliver", "terminated", "reconciled"]
    transient: bool
    reason: str
    exception: str
    fingerprint: Name
    deliveries: Count
    trace: str
    build: str = ""


class RedriveDeadLetter(Order, owner="health", entity="dead-letter", key="letter"):
    letter: Name
    by: Name
    force: bool = False


class ReportRedriven(Order, owner="health", entity="dead-letter", key="letter"):
    """The consumer handled the redriven letter, or gave it up once more."""

    letter: Name
    attempt: Count
    recovered: bool
    reason: str = ""


class DiscardDeadLetter(Order, owner="health", entity="dead-letter", key="letter"):
    letter: Name
    by: Name
    reason: str
