"""The life of a task: requested, assigned, started, finished; or failed, orphaned, cancelled, abandoned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sparring.contracts.base import Fact
from sparring.contracts.parts import TaskSpec
from sparring.contracts.selfplay_orch import (
    CancelTask,
    CloseTask,
    OpenTask,
    ReportTaskFailed,
    ReportTaskFinished,
    ReportTaskStarted,
    RequestTask,
    TaskAbandoned,
    TaskAssigned,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskOrphaned,
    TaskRequested,
    TaskStarted,
)
from sparring.decider import Context, Decider, Recorded, replace

State = Literal["", "requested", "assigned", "started", "finished", "failed", "cancelled", "abandoned"]
RUNNING = ("assigned", "started")


@dataclass(frozen=True)
class Task:
    """`attempt` numbers the assignments; `used` counts those that started: only they use up the attempts.

    `since` is when it came into its state, `avoid` the node that failed it last. `traceparent` is where a task outside of
    iterations was asked for: what becomes of it lies in that trace.
    """

    state: State = ""
    spec: TaskSpec | None = None
    by: str = ""
    attempt: int = 0
    used: int = 0
    failures: int = 0
    max_attempts: int = 3
    node: str = ""
    boot: str = ""
    avoid: str = ""
    since: datetime | None = None
    requested_at: datetime | None = None
    retry_at: datetime | None = None
    expires_at: datetime | None = None
    orphaned: bool = False
    superseded: tuple[int, ...] = ()
    traceparent: str = ""

    @property
    def iteration(self) -> str:
        return self.spec.iteration if self.spec is not None else ""

    @property
    def running(self) -> bool:
        return self.state in RUNNING

    @property
    def open(self) -> bool:
        return self.running or self.state == "requested"


def evolve(task: Task, recorded: Recorded) -> Task:
    at = recorded.at
    match recorded.fact:
        case TaskRequested() as fact:
            return Task("requested", fact.spec, fact.by, max_attempts=fact.max_attempts, requested_at=at, since=at,
                        expires_at=fact.expires_at,
                        traceparent="" if fact.spec.iteration else recorded.traceparent)  # fmt: skip
        case TaskAssigned(attempt=attempt, node=node, boot=boot):
            return replace(task, state="assigned", attempt=attempt, node=node, boot=boot, since=at, retry_at=None,
                           orphaned=False)  # fmt: skip
        case TaskStarted():
            return replace(task, state="started", since=at, used=task.used + 1)
        case TaskFinished(superseded=True, attempt=attempt):
            return replace(task, superseded=(*task.superseded, attempt))
        case TaskFinished():
            return replace(task, state="finished", since=at)
        case TaskFailed(retry_at=retry_at):
            state: State = "failed" if retry_at is None else "requested"
            return replace(task, state=state, node="", boot="", avoid=task.node, since=at, retry_at=retry_at,
                           failures=task.failures + 1)  # fmt: skip
        case TaskOrphaned():
            return replace(task, state="requested", node="", boot="", avoid=task.node, since=at, orphaned=True)
        case TaskCancelled():
            return replace(task, state="cancelled", since=at)
        case TaskAbandoned():
            return replace(task, state="abandoned", since=at)
    return task


TASK = Decider("selfplay-orch", "task", Task(), evolve, closed=lambda task: bool(task.state) and not task.open)


def request(order: RequestTask, task: Task, ctx: Context) -> list[Fact]:
    """Mints the task; asked again it changes nothing. A task without a timeout gets its kind's."""
    if task.state:
        return []
    spec = order.spec
    if spec.timeout_s == 0:
        spec = spec.model_copy(update={"timeout_s": ctx.settings.kind(spec.kind).timeout_s})
    expires_at = ctx.now + timedelta(seconds=order.expires_s) if order.expires_s is not None else None
    return [
        TaskRequested(task=order.task, spec=spec, by=order.by, max_attempts=order.max_attempts, expires_at=expires_at)
    ]


OUTSIDE = "outside"


def open_own(order: OpenTask, task: Task, ctx: Context) -> list[Fact]:
    """Work in the caller's own process: it runs from here on, until its report or its timeout."""
    if task.state:
        return []
    timeout_s = order.spec.timeout_s or ctx.settings.kind(order.spec.kind).timeout_s
    spec = order.spec.model_copy(update={"timeout_s": timeout_s, "outside": True})
    return [
        TaskRequested(task=order.task, spec=spec, by=order.by, max_attempts=1),
        TaskAssigned(task=order.task, attempt=1, node=order.node, boot=OUTSIDE, seat_limit=0),
        TaskStarted(task=order.task, attempt=1, node=order.node),
    ]


def close_own(order: CloseTask, task: Task, ctx: Context) -> list[Fact]:
    """Evidence or a reason; work that came to an end before anybody heard of its beginning is opened in the same
    decision."""
    opened: list[Fact] = []
    if not task.state:
        opened = open_own(OpenTask(task=order.task, spec=order.spec, by=order.by, node=order.node), task, ctx)
        for fact in opened:
            task = evolve(task, Recorded(0, ctx.now, fact))
    if order.failure:
        report = ReportTaskFailed(task=order.task, attempt=1, node=order.node, reason=order.failure, permanent=True)
        return [*opened, *failed(report, task, ctx)]
    done = ReportTaskFinished(task=order.task, attempt=1, node=order.node, seconds=order.seconds, files=order.files,
                              evidence=order.evidence)  # fmt: skip
    return [*opened, *finished(done, task, ctx)]


def started(order: ReportTaskStarted, task: Task, ctx: Context) -> list[Fact]:  # noqa: ARG001
    if task.state != "assigned" or order.attempt != task.attempt or order.node != task.node:
        return []
    return [TaskStarted(task=order.task, attempt=order.attempt, node=order.node)]


def finished(order: ReportTaskFinished, task: Task, ctx: Context) -> list[Fact]:
    """A completion carries its evidence; one that comes after the task went elsewhere is recorded as superseded."""
    if task.spec is None or task.state == "finished" or order.attempt > task.attempt:
        return []
    current = task.running and order.attempt == task.attempt
    if not current and order.attempt in task.superseded:
        return []
    if not order.files and not order.evidence:
        return failure(order.task, task, ctx, "a completion without evidence") if current else []
    return [
        TaskFinished(
            task=order.task, attempt=order.attempt, node=order.node, kind=task.spec.kind, lane=task.spec.lane,
            iteration=task.spec.iteration, seconds=order.seconds, files=order.files, evidence=order.evidence,
            superseded=not current,
        )
    ]  # fmt: skip


def failed(order: ReportTaskFailed, task: Task, ctx: Context) -> list[Fact]:
    if not task.running or order.attempt != task.attempt:
        return []
    return failure(order.task, task, ctx, order.reason, permanent=order.permanent)


def failure(name: str, task: Task, ctx: Context, reason: str, *, permanent: bool = False) -> list[Fact]:
    """The running attempt failed: tried again after a growing delay, or given up when its attempts are used up."""
    assert task.spec is not None
    over = permanent or used_up(task, ctx)
    delays: Sequence[float] = ctx.settings.retry_s
    retry_at = None if over else ctx.now + timedelta(seconds=delays[min(task.failures, len(delays) - 1)])
    fact = TaskFailed(
        task=name, attempt=task.attempt, node=task.node, kind=task.spec.kind, lane=task.spec.lane, reason=reason,
        retry_at=retry_at,
    )  # fmt: skip
    return [fact, _abandoned(name, task, reason)] if over else [fact]


def orphan(name: str, task: Task, ctx: Context, reason: str) -> list[Fact]:
    """Its node no longer runs it: placed again, unless its attempts are used up."""
    fact = TaskOrphaned(task=name, attempt=task.attempt, node=task.node, reason=reason)
    return [fact, _abandoned(name, task, f"orphaned: {reason}")] if used_up(task, ctx) else [fact]


def used_up(task: Task, ctx: Context) -> bool:
    """Attempts that started count; a task that never gets to start is given up after many assignments.
    Nobody but its caller can run an outside task again."""
    return task.boot == OUTSIDE or task.used >= task.max_attempts or task.attempt >= ctx.settings.most_assignments


def _abandoned(name: str, task: Task, reason: str) -> TaskAbandoned:
    assert task.spec is not None
    return TaskAbandoned(
        task=name, kind=task.spec.kind, lane=task.spec.lane, iteration=task.spec.iteration, reason=reason,
        attempts=task.used,
    )  # fmt: skip


def cancel(order: CancelTask, task: Task, ctx: Context) -> list[Fact]:  # noqa: ARG001
    return [TaskCancelled(task=order.task, reason=order.reason)] if task.open else []
