"""The published language of `health`: nodes, queues, the cluster's switch, alarms and dead letters."""

from __future__ import annotations

from typing import Literal

from sparring.contracts.base import Count, Fact, Field, Instant, Name, Order, Seconds
from sparring.contracts.parts import Level, Term

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
    sharing: Count = Field(default=1, description="agents on its machine, which share the machine's budget")
    misfit: str = Field(default="", description="why it is incompatible")


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


class NodePreemptionNoticed(_Node, owner="health", entity="node", key="node"):
    """Its machine will be taken away: no new work, what it holds is brought out within the grace time."""

    boot: Name
    reason: str
    grace_s: Seconds


class NodeRetired(_Node, owner="health", entity="node", key="node"):
    """It gets no work until it comes back with a new boot id."""

    boot: str
    by: Name
    reason: str


class NodeForgotten(_Node, owner="health", entity="node", key="node"):
    """It counts no more; its next beat would join it as a new one."""

    by: Name
    reason: str


class NodeOrderRefused(_Node, owner="health", entity="node", key="node"):
    order: Name
    reason: str


class CapacityRetargeted(_Node, owner="health", entity="node", key="node"):
    """How many seats the node may use now."""

    seats: Count
    before: Count
    terms: tuple[Term, ...]
    sharing: Count | None = Field(default=None, description="agents on its machine, when that is why")


class ObservationLost(Fact, owner="health", entity="watch", key="watch"):
    """Too many fell silent at once to be their own fault: nothing is orphaned for a while."""

    watch: Name = "main"
    silent: Count
    nodes: Count
    until: Instant


class ObservationRegained(Fact, owner="health", entity="watch", key="watch"):
    watch: Name = "main"


class BackpressureChanged(Fact, owner="health", entity="queue", key="queue"):
    """`queue` is `<lane>-<name>`: training-data, pending-games, evaluation, promotion, sync, export; `cluster-nodes` with
    lane `*` is the share of critical nodes, which presses on all lanes. `depth` is None while it is unknown."""

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
    target: float | None = Field(default=None, description="the depth to aim for")


class ClusterSwitched(Fact, owner="health", entity="cluster", key="cluster"):
    cluster: Name = "main"
    state: Switch
    before: Switch
    revision: Count
    by: Name
    reason: str
    automatic: bool = Field(default=False, description="health decided it; a person's switch is never undone by it")
    override_until: Instant | None = Field(default=None, description="until then nothing is switched automatically")
    terms: tuple[Term, ...] = ()


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
    since: Instant | None = None
    whose: str = Field(default="", description="who has to act: a person, or the service that will")


class AlarmCleared(Fact, owner="health", entity="alarm", key="alarm"):
    alarm: Name
    about: Name


Scope = Literal["node", "kind", "link"]


class _Breaker(Fact):
    """`node-<node>`, `kind-<lane>-<kind>` or `link-<node>` (its way to the store)."""

    breaker: Name
    scope: Scope
    node: str = ""
    lane: str = ""
    kind: str = ""


class BreakerOpened(_Breaker, owner="health", entity="breaker", key="breaker"):
    """Too many failures in a row: no call before `until`, then one trial."""

    failures: Count
    limit: Count
    times: Count = Field(description="openings since it last closed")
    until: Instant
    boot: str = ""
    reason: str


class BreakerHalfOpened(_Breaker, owner="health", entity="breaker", key="breaker"):
    """One trial may run; without any until then it closes."""

    times: Count
    until: Instant


class BreakerClosed(_Breaker, owner="health", entity="breaker", key="breaker"):
    times: Count
    reason: str


RecoveryAction = Literal["restart task", "kill task", "drain node", "retire node"]


class _Recovery(Fact):
    """`node-<node>` or `task-<task>-<attempt>`."""

    recovery: Name
    node: Name
    task: str = ""


class RecoveryAttempted(_Recovery, owner="health", entity="recovery", key="recovery"):
    action: RecoveryAction
    attempt: Count
    limit: Count
    reason: str
    until: Instant


class RecoverySucceeded(_Recovery, owner="health", entity="recovery", key="recovery"):
    attempt: Count
    reason: str


class RecoveryFailed(_Recovery, owner="health", entity="recovery", key="recovery"):
    action: RecoveryAction
    attempt: Count
    reason: str


class Escalated(_Recovery, owner="health", entity="recovery", key="recovery"):
    """All attempts were used up: a person must look; nothing more is tried or said before `quiet_until`."""

    attempts: Count
    reason: str
    quiet_until: Instant


class ThresholdMoved(Fact, owner="health", entity="threshold", key="threshold"):
    """A limit that follows what it limits, inside its bounds, in seconds."""

    threshold: Name
    value: float
    before: float
    least: float
    most: float
    terms: tuple[Term, ...]


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


class RetireNode(Order, owner="health", entity="node", key="node"):
    """No work for it any more until it comes back with a new boot id; what it runs is placed elsewhere."""

    node: Name
    by: Name
    reason: str


class ForgetNode(Order, owner="health", entity="node", key="node"):
    """Stops counting a node that is gone; refused while it is alive."""

    node: Name
    by: Name
    reason: str


class SwitchCluster(Order, owner="health", entity="cluster", key="cluster"):
    cluster: Name = "main"
    state: Switch
    revision: Count
    by: Name
    reason: str = ""
    override_s: Seconds | None = Field(default=None, description="how long nothing is switched automatically after it")


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
