"""What node agents are told: start what is assigned, stop what should not run, halt."""

from __future__ import annotations

from collections.abc import Iterable

from selfplay_orch.core.look import Look
from selfplay_orch.core.picture import Stop
from sparring.contracts.node_agent import HaltNode, StartTask, StopTask
from sparring.decider import Action, Send

# an agent beats every 5 s: a beat heard this long after a moment was made after it
SETTLED_S = 6.0
GIVE_UP_S = 120.0


def orders(look: Look) -> Iterable[Action]:
    if look.all.cluster == "halted":
        yield from _halt(look)
    else:
        yield from _start(look)
    for stop in look.all.stopping.values():
        if _runs_on(look, stop):
            order = StopTask(node=stop.node, task=stop.task, attempt=stop.attempt, reason=stop.reason)
            yield Send(order, key=f"stop-{stop.task}-{stop.attempt}", correlation=stop.iteration)


def _start(look: Look) -> Iterable[Action]:
    for name, task in look.index.assigned.items():
        if task.spec is not None:
            order = StartTask(node=task.node, boot=task.boot, task=name, attempt=task.attempt, spec=task.spec)
            yield Send(order, key=f"start-{name}-{task.attempt}", correlation=task.iteration,
                       traceparent=task.traceparent)  # fmt: skip


def _runs_on(look: Look, stop: Stop) -> bool:
    """Until a beat made after the ending no longer lists the attempt. What was ordered to end is not waited for, but
    without beats the order is repeated for two minutes only."""
    since = (look.now - stop.at).total_seconds()
    beat = look.beat(stop.node)
    if beat is None or since - beat.age_s < SETTLED_S:
        return stop.ordered and since < GIVE_UP_S
    return any(one.task == stop.task and one.attempt == stop.attempt for one in beat.data.running)


def _halt(look: Look) -> Iterable[Action]:
    for name, node in look.all.nodes.items():
        if node.state not in ("lost", "drained") and not _quiet(look, name):
            order = HaltNode(node=name, reason="the cluster is halted")
            yield Send(order, key=f"halt-{look.all.revision}-{name}-{node.boot}")


def _quiet(look: Look, node: str) -> bool:
    """Whether a beat made after the switch lists nothing."""
    beat, switched_at = look.beat(node), look.all.switched_at
    if beat is None or switched_at is None:
        return False
    settled = (look.now - switched_at).total_seconds() - beat.age_s >= SETTLED_S
    return settled and not beat.data.running
