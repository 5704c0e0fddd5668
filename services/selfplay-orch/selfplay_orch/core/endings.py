"""Tasks that go on without a report: expired, superseded, orphaned, out of time, or seen to run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from selfplay_orch.core.look import Look
from selfplay_orch.core.task import TASK, Task, failure, orphan
from sparring.contracts.base import Fact
from sparring.contracts.selfplay_orch import TaskCancelled, TaskStarted
from sparring.decider import Action, Append
from sparring.subjects import Ref

GONE = ("lost", "drained", "retired")

Ending = Callable[[Task], list[Fact]]


def endings(look: Look) -> Iterable[Action]:
    """Every wait and every run has a deadline; this acts on those that passed."""
    for name, task in look.due():
        ending = _ending(look, name, task)
        if ending is not None:
            yield _on_task(name, task, ending)
    for name, task in look.all.outside.items():
        reason = _out_of_time(look, task)
        if reason:
            yield _on_task(name, task, partial(failure, name, ctx=look.ctx, reason=reason))


def _ending(look: Look, name: str, task: Task) -> Ending | None:
    if task.state == "requested":
        reason = _unwanted(look, task)
        return (lambda _: [TaskCancelled(task=name, reason=reason)]) if reason else None
    placed_s = (look.now - task.since).total_seconds() if task.since is not None else 0.0
    listed = _listed(look, name, task) if placed_s >= look.settings.lease_s else None
    reason = _orphaned(look, task, placed_s, listed)
    if reason:
        return lambda now: orphan(name, now, look.ctx, reason)
    if task.state == "assigned" and listed:
        return lambda now: [TaskStarted(task=name, attempt=now.attempt, node=now.node)]
    reason = _out_of_time(look, task)
    return (lambda now: failure(name, now, look.ctx, reason)) if reason else None


def _unwanted(look: Look, task: Task) -> str:
    """Why a task that waits for a seat should wait no longer; '' when it should."""
    if look.now > waits_until(task, look.settings.wait_s):
        return "expired"
    if task.spec is None:
        return ""
    lane = look.all.lanes.get(task.spec.lane)
    if lane is None:
        return ""
    if task.by == "selfplay-orch" and (not lane.plays or lane.factor("selfplay") <= 0):
        return "the lane is paused or throttled"
    gate, newest = task.spec.gate, lane.gates[-1] if lane.gates else ""
    older = gate in lane.gates and gate != newest
    if task.spec.kind == "evaluate" and older and _asked_before(task, lane.gate_at):
        return f"superseded by the newer candidate of {newest}"
    return ""


def waits_until(task: Task, wait_s: float) -> datetime:
    """The deadline of a wait for a seat: what the requester said, else `wait_s` after the wait began."""
    assert task.since is not None
    return task.expires_at or task.since + timedelta(seconds=wait_s)


def _asked_before(task: Task, moment: datetime | None) -> bool:
    return moment is not None and task.requested_at is not None and task.requested_at <= moment


def _orphaned(look: Look, task: Task, placed_s: float, listed: bool | None) -> str:
    """A task's lease is its node's beat that lists it; `listed` is None while nothing is known of that."""
    node = look.all.nodes.get(task.node)
    if node is None or node.state in GONE:
        return "the node is lost"
    if node.boot != task.boot:
        return "the node restarted"
    settings, blind = look.settings, look.all.blind_until
    if blind is not None and look.now < blind:
        return ""
    if listed is False:
        return f"not in the node's beat {settings.lease_s:.0f} s after it was placed"
    heard = look.listened_s > settings.beat_fresh_s
    late = listed is None and heard and task.state == "assigned" and placed_s > settings.start_s
    return f"did not start within {settings.start_s:.0f} s" if late else ""


def _listed(look: Look, name: str, task: Task) -> bool | None:
    """Whether its node runs it: a fresh beat says so, also while the report of its start waits to be heard here. None without
    such a beat."""
    beat = look.beat(task.node)
    if beat is None or beat.age_s >= look.settings.beat_fresh_s or beat.data.boot != task.boot:
        return None
    return any(one.task == name and one.attempt == task.attempt for one in beat.data.running)


def _out_of_time(look: Look, task: Task) -> str:
    """The agent ends a task at its timeout; the owner does when nobody said so within the grace time."""
    if task.state != "started" or task.since is None or task.spec is None:
        return ""
    over = look.now > task.since + timedelta(seconds=task.spec.timeout_s + look.settings.grace_s)
    return f"ran longer than {task.spec.timeout_s:.0f} s" if over else ""


def _on_task(name: str, task: Task, ending: Ending) -> Append:
    ref = TASK.ref(name)

    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        now: Task = states[ref]
        return ending(now) if (now.state, now.attempt) == (task.state, task.attempt) else []

    return Append([(TASK, name)], decide, correlation=task.iteration, traceparent=task.traceparent)
