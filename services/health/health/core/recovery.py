"""What health does by itself about a node or a task in trouble: a few attempts, then a person, then quiet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sparring.contracts.base import Fact
from sparring.contracts.health import (
    Escalated,
    RecoveryAction,
    RecoveryAttempted,
    RecoveryFailed,
    RecoverySucceeded,
)
from sparring.decider import Decider, Recorded, replace


@dataclass(frozen=True)
class Recovery:
    """`until` ends the state that it is in: an attempt's cool-down, or the quiet after an escalation."""

    state: Literal["well", "trying", "failed", "escalated"] = "well"
    attempts: int = 0
    action: RecoveryAction | None = None
    until: datetime | None = None
    since: datetime | None = None
    reason: str = ""
    node: str = ""
    task: str = ""


def evolve(recovery: Recovery, recorded: Recorded) -> Recovery:
    at = recorded.at
    match recorded.fact:
        case RecoveryAttempted() as fact:
            return Recovery("trying", fact.attempt, fact.action, fact.until, at, fact.reason, fact.node, fact.task)
        case RecoveryFailed(reason=reason):
            return replace(recovery, state="failed", until=None, since=at, reason=reason)
        case Escalated(quiet_until=until, reason=reason):
            return replace(recovery, state="escalated", until=until, since=at, reason=reason)
        case RecoverySucceeded():
            return Recovery(since=at, node=recovery.node, task=recovery.task)
    return recovery


RECOVERY = Decider("health", "recovery", Recovery(), evolve)


@dataclass(frozen=True)
class Trouble:
    """Something that is not well, and what can be tried, one after the other; `attempt` is the task's."""

    node: str
    reason: str
    steps: Sequence[RecoveryAction]
    task: str = ""
    attempt: int = 0

    @property
    def id(self) -> str:
        return f"task-{self.task}-{self.attempt}" if self.task else f"node-{self.node}"

    def fields(self) -> dict[str, Any]:
        return {"recovery": self.id, "node": self.node, "task": self.task}


@dataclass(frozen=True)
class Budget:
    """Cool-down after each attempt, and how long nothing more is tried or said after the last one, in seconds."""

    cooldown_s: float
    quiet_s: float


def next_step(recovery: Recovery, trouble: Trouble, budget: Budget, now: datetime) -> list[Fact]:
    """The next attempt while there is one; after the last one, a person. Nothing before the deadline of what was done."""
    if recovery.until is not None and now < recovery.until:
        return []
    if recovery.state == "trying" and recovery.action is not None:
        return [
            RecoveryFailed(**trouble.fields(), action=recovery.action, attempt=recovery.attempts, reason=trouble.reason)
        ]
    if recovery.state != "escalated" and recovery.attempts < len(trouble.steps):
        return [
            RecoveryAttempted(
                **trouble.fields(),
                action=trouble.steps[recovery.attempts],
                attempt=recovery.attempts + 1,
                limit=len(trouble.steps),
                reason=trouble.reason,
                until=now + timedelta(seconds=budget.cooldown_s),
            )
        ]
    until = now + timedelta(seconds=budget.quiet_s)
    return [
        Escalated(**trouble.fields(), attempts=recovery.attempts, reason=trouble.reason, quiet_until=until),
    ]


def well_again(id: str, recovery: Recovery) -> list[Fact]:
    """The trouble is gone: what was tried last helped, or a person did."""
    if recovery.state == "well":
        return []
    reason = "the trouble ended after it was escalated" if recovery.state == "escalated" else "the trouble is gone"
    return [
        RecoverySucceeded(recovery=id, node=recovery.node, task=recovery.task, attempt=recovery.attempts, reason=reason)
    ]
