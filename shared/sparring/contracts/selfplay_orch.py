"""The published language of `selfplay-orch`: tasks, who runs them, and what each lane gets."""

from __future__ import annotations

from sparring.contracts.base import Count, Fact, Field, Instant, Json, Name, Order, Part, Seconds
from sparring.contracts.parts import Artifact, Kind, TaskSpec, Term


class _Task(Fact):
    task: Name


class TaskRequested(_Task, owner="selfplay-orch", entity="task", key="task"):
    spec: TaskSpec
    by: Name
    max_attempts: Count = 3
    expires_at: Instant | None = None


class TaskAssigned(_Task, owner="selfplay-orch", entity="task", key="task"):
    attempt: Count
    node: Name
    boot: Name
    seat_limit: Count
    terms: tuple[Term, ...] = Field(default=(), description="the readings compared, ages in seconds included")


class TaskStarted(_Task, owner="selfplay-orch", entity="task", key="task"):
    attempt: Count
    node: Name


class TaskFinished(_Task, owner="selfplay-orch", entity="task", key="task"):
    attempt: Count
    node: Name
    kind: Kind
    lane: Name
    iteration: str = ""
    seconds: Seconds
    files: tuple[Artifact, ...]
    evidence: Json
    superseded: bool = False


class TaskFailed(_Task, owner="selfplay-orch", entity="task", key="task"):
    attempt: Count
    node: Name
    kind: Kind
    lane: Name
    reason: str
    retry_at: Instant | None


class TaskOrphaned(_Task, owner="selfplay-orch", entity="task", key="task"):
    attempt: Count
    node: Name
    reason: str


class TaskCancelled(_Task, owner="selfplay-orch", entity="task", key="task"):
    reason: str


class TaskAbandoned(_Task, owner="selfplay-orch", entity="task", key="task"):
    """All attempts are used up; whoever asked must decide again."""

    kind: Kind
    lane: Name
    iteration: str = ""
    reason: str
    attempts: Count


class SeatTaken(Fact, owner="selfplay-orch", entity="node", key="node"):
    """The node's half of a placement; `freed` are tasks that ended there since the last one."""

    node: Name
    task: Name
    kind: Kind
    freed: tuple[str, ...] = ()
    running: Count
    limit: Count


class SpawnAdmitted(Fact, owner="selfplay-orch", entity="quota", key="kind"):
    """The kind's half of a placement; `freed` are tasks that ended since the last one."""

    kind: Kind
    task: Name
    node: Name
    freed: tuple[str, ...] = ()
    running: Count
    limit: Count


class TaskDenied(Fact, owner="selfplay-orch", entity="quota", key="kind"):
    """A standing denial, one fact until its reason changes."""

    kind: Kind
    node: str
    lane: str
    reason: Name
    actual: float
    limit: float
    terms: tuple[Term, ...] = ()


class LaneShare(Part):
    """What a lane gets, and why."""

    lane: Name
    share: float
    score: float
    terms: tuple[Term, ...]


class LaneSharesPlanned(Fact, owner="selfplay-orch", entity="plan", key="plan"):
    plan: Name = "main"
    shares: tuple[LaneShare, ...]
    read_to: Count


class RequestTask(Order, owner="selfplay-orch", entity="task", key="task"):
    task: Name
    spec: TaskSpec
    by: Name
    max_attempts: Count = 3
    expires_s: Seconds | None = None


class OpenTask(Order, owner="selfplay-orch", entity="task", key="task"):
    """Records work that runs in the caller's own process: requested and started at once, never placed, never retried."""

    task: Name
    spec: TaskSpec
    by: Name
    node: Name = Field(description="where the caller runs")


class CloseTask(Order, owner="selfplay-orch", entity="task", key="task"):
    """Ends work that ran in the caller's own process; with `failure` it failed. It carries all that opened it, so that it
    counts also when it arrives before the order that opened it."""

    task: Name
    spec: TaskSpec
    by: Name
    node: Name
    seconds: Seconds
    files: tuple[Artifact, ...] = ()
    evidence: Json = Field(default_factory=dict)
    failure: str = ""


class ReportTaskStarted(Order, owner="selfplay-orch", entity="task", key="task"):
    task: Name
    attempt: Count
    node: Name


class ReportTaskFinished(Order, owner="selfplay-orch", entity="task", key="task"):
    task: Name
    attempt: Count
    node: Name
    seconds: Seconds
    files: tuple[Artifact, ...]
    evidence: Json


class ReportTaskFailed(Order, owner="selfplay-orch", entity="task", key="task"):
    task: Name
    attempt: Count
    node: Name
    reason: str
    permanent: bool = False


class CancelTask(Order, owner="selfplay-orch", entity="task", key="task"):
    task: Name
    reason: str


class BoostLane(Order, owner="selfplay-orch", entity="boost", key="lane"):
    lane: Name
    factor: float = Field(ge=1.0, le=3.0)
    for_s: Seconds
    revision: Count
    by: Name


class LaneBoosted(Fact, owner="selfplay-orch", entity="boost", key="lane"):
    lane: Name
    factor: float
    until: Instant
    revision: Count
    by: Name


class BoostRefused(Fact, owner="selfplay-orch", entity="boost", key="lane"):
    lane: Name
    revision: Count
    newest: Count
