"""Finds trouble that health itself can do something about, and does one thing at a time about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from health.core.beats import Heard
from health.core.node import NODE, drain, retire
from health.core.picture import HealthPicture
from health.core.recovery import RECOVERY, Budget, Recovery, Trouble, next_step, well_again
from sparring.contracts.base import Fact
from sparring.contracts.health import DrainNode, RecoveryAttempted, RetireNode
from sparring.contracts.node_agent import StopTask
from sparring.contracts.selfplay_orch import CancelTask
from sparring.decider import Action, Append, Context, Send
from sparring.subjects import Ref

HEALTH = "health"
# of the nodes, those which health drains or retires at the same time at most
AT_ONCE = 0.1
OPENINGS = 2


def recoveries(ctx: Context, picture: HealthPicture, beats: Heard) -> Iterable[Action]:
    found = {one.id: one for one in (*node_troubles(picture), *task_troubles(ctx, picture, beats))}
    budget = Budget(ctx.settings.recovery_cooldown_s, ctx.settings.recovery_quiet_s)
    room = _room(picture)
    for id, trouble in found.items():
        known = picture.all.recoveries.get(id, Recovery())
        facts = next_step(known, trouble, budget, ctx.now)
        begins = [one for one in facts if isinstance(one, RecoveryAttempted) and not trouble.task]
        if not facts or (begins and room < 1):
            continue
        room -= len(begins)
        yield _append(ctx, trouble, budget)
    for id, known in picture.all.recoveries.items():
        if id not in found and well_again(id, known):
            yield Append([(RECOVERY, id)], partial(_well, id))
        elif known.state == "trying" and known.task:
            yield from _carried_out(id, known)


def _room(picture: HealthPicture) -> int:
    """How many nodes may be taken out now: never the last healthy one, and few at a time."""
    healthy = sum(node.state == "healthy" for node in picture.all.nodes.values())
    out = sum(one.state == "trying" and not one.task for one in picture.all.recoveries.values())
    return min(healthy - 1, max(1, int(AT_ONCE * len(picture.all.nodes))) - out)


def _append(ctx: Context, trouble: Trouble, budget: Budget) -> Append:
    entities: list[Any] = [(RECOVERY, trouble.id)]
    if not trouble.task:
        entities.append((NODE, trouble.node))
    return Append(entities, partial(_step, ctx, trouble, budget))


def _step(ctx: Context, trouble: Trouble, budget: Budget, states: Mapping[Ref, Any]) -> Sequence[Fact]:
    facts = next_step(states[RECOVERY.ref(trouble.id)], trouble, budget, ctx.now)
    done: list[Fact] = []
    for fact in facts:
        match fact:
            case RecoveryAttempted(action="drain node", node=name):
                order = DrainNode(node=name, by=HEALTH, reason=fact.reason)
                done += drain(order, states[NODE.ref(name)], ctx)
            case RecoveryAttempted(action="retire node", node=name):
                leave = RetireNode(node=name, by=HEALTH, reason=fact.reason)
                done += retire(leave, states[NODE.ref(name)], ctx)
    return [*facts, *done]


def _well(id: str, states: Mapping[Ref, Any]) -> Sequence[Fact]:
    return well_again(id, states[RECOVERY.ref(id)])


def _carried_out(id: str, known: Recovery) -> Iterable[Send]:
    """The order that an attempt on a task consists of."""
    key = f"recovery-{id}-{known.attempts}"
    attempt = int(id.rpartition("-")[2])
    if known.action == "restart task":
        yield Send(StopTask(node=known.node, task=known.task, attempt=attempt, reason=known.reason), key=key)
    if known.action == "kill task":
        yield Send(CancelTask(task=known.task, reason=known.reason), key=key)


def node_troubles(picture: HealthPicture) -> Iterable[Trouble]:
    """A node whose breaker opened again after its trial: an agent that starts anew may help, being without it does."""
    for breaker in picture.all.breakers.values():
        if breaker.state == "closed" or breaker.times < OPENINGS or breaker.about is None:
            continue
        name = breaker.about.node
        node = picture.all.nodes.get(name)
        if breaker.about.scope == "node" and node is not None and node.boot == breaker.boot and node.state != "retired":
            reason = f"its breaker opened {breaker.times} times in a row"
            yield Trouble(name, reason, ("drain node", "drain node", "retire node"))


def task_troubles(ctx: Context, picture: HealthPicture, beats: Heard) -> Iterable[Trouble]:
    """A program that said how far it is, and stands still there. Its owner's timeout may be hours away."""
    moved, seen = picture.progress, set()
    for name, (beat, age_s) in beats.nodes.items():
        for one in beat.running:
            if one.done is None or age_s > ctx.settings.suspect_s:
                continue
            key = (one.task, one.attempt)
            seen.add(key)
            done, at = moved.get(key, (one.done, ctx.now))
            moved[key] = (done, at) if done == one.done else (one.done, ctx.now)
            still_s = (ctx.now - moved[key][1]).total_seconds()
            if still_s >= ctx.settings.standstill_s:
                reason = f"it stands still at {one.done:.0%} since {still_s:.0f} s"
                yield Trouble(name, reason, ("restart task", "kill task"), one.task, one.attempt)
    for key in moved.keys() - seen:
        del moved[key]
