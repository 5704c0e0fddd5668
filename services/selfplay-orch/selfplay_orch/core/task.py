"""The life of a task: requested, assigned, started, finished; or failed, orphaned, cancelled, abandoned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from sparring.contracts.base import Fact
from sparring.contracts.parts import TaskSpec
from sparring.contracts.selfplay_orch import (
    CancelTask,
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
from sparring.decider import Context, Decider, Recorded

State = Literal["", "requested", "assigned", "started", "finished", "cancelled", "abandoned"]
RETRY_S = (1.0, 5.0, 30.0)
RUNNING = ("assigned", "started")


@dataclass(frozen=True)
class Task:
    """`attempt` numbers the assignments; `used` counts those that started: only they use up the attempts."""

    state: State = ""
    spec: TaskSpec | None = None
    by: str = ""
    attempt: int = 0
    used: int = 0
    max_attempts: int = 3
    node: str = ""
    boot: str = ""
    requested_at: datetime | None = None
    assigned_at: datetime | None = None
    started_at: datetime | None = None
    retry_at: datetime | None = None
    expires_at: datetime | None = None
    orphaned: bool = False
    superseded: tuple[int, ...] = ()

    @property
    def running(self) -> bool:
        return self.state in RUNNING


def evolve(task: Task, recorded: Recorded) -> Task:
    at = recorded.at
    match recorded.fact:
        case TaskRequested() as fact:
            return Task("requested", fact.spec, fact.by, max_attempts=fact.max_attempts, requested_at=at,
                        expires_at=fact.expires_at)  # fmt: skip
        case TaskAssigned(attempt=attempt, node=node, boot=boot):
            return replace(task, state="assigned", attempt=attempt, node=node, boot=boot, assigned_at=at,
                           started_at=None, orphaned=False)  # fmt: skip
        case TaskStarted():
            return replace(task, state="started", started_at=at, used=task.used + 1)
        case TaskFinished(superseded=True, attempt=attempt):
            return replace(task, superseded=(*task.superseded, attempt))
        case TaskFinished():
            return replace(task, state="finished")
        case TaskFailed(retry_at=retry_at):
            return replace(task, state="requested", node="", boot="", retry_at=retry_at)
        case TaskOrphaned():
            return replace(task, state="requested", node="", boot="", retry_at=at, orphaned=True)
        case TaskCancelled():
            return replace(task, state="cancelled")
        case TaskAbandoned():
            return replace(task, state="abandoned")
    return task


TASK = Decider("selfplay-orch", "task", Task(), evolve)


def request(order: RequestTask, task: Task, ctx: Context) -> list[Fact]:
    """Mints the task; asked again it changes nothing."""
    if task.state:
        return []
    expires_at = ctx.now + timedelta(seconds=order.expires_s) if order.expires_s is not None else None
    return [
        TaskRequested(
            task=order.task, spec=order.spec, by=order.by, max_attempts=order.max_attempts, expires_at=expires_at
        )
    ]


def started(order: ReportTaskStarted, task: Task, ctx: Context) -> list[Fact]:  # noqa: ARG001
    if task.state != "assigned" or order.attempt != task.attempt or order.node != task.node:
        return []
    return [TaskStarted(task=order.task, attempt=order.attempt, node=order.node)]


def finished(order: ReportTaskFinished, task: Task, ctx: Context) -> list[Fact]:
    """A completion carries its evidence; one that comes after the task went elsewhere is recorded as superseded."""
    if task.spec is None:
        return []
    current = task.running and order.attempt == task.attempt
    if not current and (order.attempt in task.superseded or order.attempt > task.attempt or _ended_by(order, task)):
        return []
    if not order.evidence:
        return _failed(order, task, ctx, "a completion without evidence") if current else []
    return [
        TaskFinished(
            task=order.task, attempt=order.attempt, node=order.node, kind=task.spec.kind, lane=task.spec.lane,
            iteration=task.spec.iteration, seconds=order.seconds, files=order.files, evidence=order.evidence,
            superseded=not current,
        )
    ]  # fmt: skip


def _ended_by(order: ReportTaskFinished, task: Task) -> bool:
    return task.state == "finished" and order.attempt == task.attempt


def failed(order: ReportTaskFailed, task: Task, ctx: Context) -> list[Fact]:
    if not task.running or order.attempt != task.attempt:
        return []
    return _failed(order, task, ctx, order.reason, permanent=order.permanent)


def _failed(
    order: ReportTaskFailed | ReportTaskFinished, task: Task, ctx: Context, reason: str, *, permanent: bool = False
) -> list[Fact]:
    assert task.spec is not None
    over = permanent or task.used >= task.max_attempts
    retry_at = None if over else ctx.now + timedelta(seconds=RETRY_S[min(task.used, len(RETRY_S) - 1)])
    failure = TaskFailed(
        task=order.task, attempt=order.attempt, node=order.node, kind=task.spec.kind, lane=task.spec.lane,
        reason=reason, retry_at=retry_at,
    )  # fmt: skip
    return [failure, abandoned(order.task, task, reason)] if over else [failure]


def abandoned(name: str, task: Task, reason: str) -> TaskAbandoned:
    assert task.spec is not None
    return TaskAbandoned(
        task=name, kind=task.spec.kind, lane=task.spec.lane, iteration=task.spec.iteration, reason=reason,
        attempts=task.used,
    )  # fmt: skip


def cancel(order: CancelTask, task: Task, ctx: Context) -> list[Fact]:  # noqa: ARG001
    open_ = task.state in ("requested", *RUNNING)
    return [TaskCancelled(task=order.task, reason=order.reason)] if open_ else []
