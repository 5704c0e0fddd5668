"""A node's life as its heartbeats tell it: joined, suspected, lost, leaving, drained, retired."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from health.core.seats import class_seats
from sparring.contracts.base import Fact
from sparring.contracts.health import (
    CapacityRetargeted,
    DrainNode,
    ForgetNode,
    NodeDrained,
    NodeDraining,
    NodeForgotten,
    NodeJoined,
    NodeLost,
    NodeOrderRefused,
    NodePreemptionNoticed,
    NodeRecovered,
    NodeRetired,
    NodeSuspected,
    RetireNode,
)
from sparring.contracts.readings import Heartbeat
from sparring.decider import Context, Decider, Recorded, replace

State = Literal["", "healthy", "incompatible", "suspected", "lost", "preempted", "draining", "drained", "retired"]
WATCHED = ("healthy", "suspected", "incompatible", "preempted", "draining")


@dataclass(frozen=True)
class Node:
    """`boot` is the agent's present life: a new one orphans at once what the old one ran.
    `grace_s` is the time that a leaving node has, `silent_s` how long a suspected one was silent when it was suspected."""

    state: State = ""
    boot: str = ""
    seats: int = 0
    class_seats: int = 0
    machine: str = ""
    sharing: int = 1
    since: datetime | None = None
    joined_at: datetime | None = None
    ephemeral: bool = False
    grace_s: float = 0.0
    silent_s: float = 0.0


def evolve(node: Node, recorded: Recorded) -> Node:
    at = recorded.at
    match recorded.fact:
        case NodeJoined() as fact:
            state: State = "healthy" if fact.compatible else "incompatible"
            first = node.joined_at if node.boot == fact.boot and node.joined_at else at
            return Node(state, fact.boot, fact.seats, fact.seats, fact.machine, fact.sharing, at, first, fact.ephemeral)
        case NodeSuspected(silent_s=silent_s):
            return replace(node, state="suspected", since=at, silent_s=silent_s)
        case NodeRecovered():
            return replace(node, state="healthy", since=at, silent_s=0.0)
        case NodeLost(silent_s=silent_s):
            return replace(node, state="lost", since=at, silent_s=silent_s)
        case NodePreemptionNoticed(grace_s=grace_s):
            return replace(node, state="preempted", since=at, grace_s=grace_s)
        case NodeDraining(grace_s=grace_s):
            return replace(node, state="draining", since=at, grace_s=grace_s)
        case NodeDrained():
            return replace(node, state="drained", since=at)
        case NodeRetired():
            return replace(node, state="retired", since=at)
        case NodeForgotten():
            return Node()
        case CapacityRetargeted(seats=seats, sharing=sharing):
            if sharing is None:
                return replace(node, seats=seats)
            return replace(node, seats=seats, class_seats=seats, sharing=sharing)
    return node


NODE = Decider("health", "node", Node(), evolve)


@dataclass(frozen=True)
class Fits:
    """Which agents this health can work with: those that know its messages; and, where builds are named, those alone."""

    contracts: str
    builds: tuple[str, ...] = ()

    def misfit(self, heart: Heartbeat) -> str:
        """Why the agent is incompatible; '' when it is not."""
        if self.builds and heart.build not in self.builds:
            return f"build {heart.build} is none of {', '.join(self.builds)}"
        if heart.contracts != self.contracts:
            return f"its messages are {heart.contracts}, those of the services {self.contracts}"
        return ""


def beat(name: str, heart: Heartbeat, node: Node, fits: Fits, sharing: int, now: datetime) -> list[Fact]:
    """What a heartbeat changes. `sharing` agents on one machine divide its budget."""
    if node.state == "retired" and heart.boot == node.boot:
        return []
    if heart.boot != node.boot:
        if node.state not in WATCHED:
            return [joined(name, heart, fits, sharing)]
        lost = NodeLost(node=name, boot=node.boot, reason="rebooted", silent_s=0, limit_s=0)
        return [lost, joined(name, heart, fits, sharing)]
    if node.state in ("lost", ""):
        return [joined(name, heart, fits, sharing)]
    if node.state == "suspected":
        silent = node.silent_s + ((now - node.since).total_seconds() if node.since else 0.0)
        return [NodeRecovered(node=name, boot=heart.boot, silent_s=round(silent, 1))]
    if (node.state == "healthy") == bool(fits.misfit(heart)) and node.state in ("healthy", "incompatible"):
        return [joined(name, heart, fits, sharing)]
    return _leaves(name, heart, node)


def _leaves(name: str, heart: Heartbeat, node: Node) -> list[Fact]:
    stays = node.state in ("healthy", "incompatible")
    if heart.notice and (stays or node.state == "draining"):
        grace_s = heart.notice_s or 0.0
        return [NodePreemptionNoticed(node=name, boot=heart.boot, reason=heart.notice, grace_s=grace_s)]
    if stays and heart.draining:
        return [NodeDraining(node=name, boot=heart.boot, reason="the agent says so", by=name, grace_s=0)]
    if node.state in ("draining", "preempted") and heart.draining and not heart.running and not heart.spooled:
        return [NodeDrained(node=name, boot=heart.boot)]
    return []


def joined(name: str, heart: Heartbeat, fits: Fits, sharing: int) -> NodeJoined:
    found, misfit = heart.resources, fits.misfit(heart)
    return NodeJoined(
        node=name,
        boot=heart.boot,
        build=heart.build,
        compatible=not misfit,
        ephemeral=heart.ephemeral,
        tags=heart.tags,
        kinds=heart.kinds,
        machine=heart.machine or name,
        cores=found.cores,
        memory_bytes=found.memory_total_bytes,
        gpus=tuple(gpu.name for gpu in found.gpus),
        seats=class_seats(heart, sharing),
        sharing=max(1, sharing),
        misfit=misfit,
    )


def silence(name: str, node: Node, silent_s: float, suspect_s: float, lost_s: float) -> list[Fact]:
    """What silence changes; `silent_s` counts only while the watcher itself could hear."""
    if node.state not in WATCHED:
        return []
    if silent_s >= lost_s:
        return [NodeLost(node=name, boot=node.boot, reason="silent", silent_s=round(silent_s, 1), limit_s=lost_s)]
    if node.state == "healthy" and silent_s >= suspect_s:
        return [NodeSuspected(node=name, boot=node.boot, silent_s=round(silent_s, 1), limit_s=suspect_s)]
    return []


def drain(order: DrainNode, node: Node, ctx: Context) -> list[Fact]:  # noqa: ARG001
    if node.state not in ("healthy", "suspected", "incompatible", "preempted"):
        return []
    return [NodeDraining(node=order.node, boot=node.boot, reason=order.reason, by=order.by, grace_s=order.grace_s)]


def retire(order: RetireNode, node: Node, ctx: Context) -> list[Fact]:  # noqa: ARG001
    """A retired node's work is placed elsewhere at once; it comes back only with a new boot id."""
    if node.state == "":
        return [NodeOrderRefused(node=order.node, order="RetireNode", reason="no such node is known")]
    if node.state == "retired":
        return []
    lost = NodeLost(node=order.node, boot=node.boot, reason="retired", silent_s=0, limit_s=0)
    retired = NodeRetired(node=order.node, boot=node.boot, by=order.by, reason=order.reason)
    return [lost, retired] if node.state in WATCHED else [retired]


def forget(order: ForgetNode, node: Node, ctx: Context) -> list[Fact]:  # noqa: ARG001
    """Only a node that is gone can be forgotten: a living one would join again with its next beat."""
    if node.state == "":
        return []
    if node.state in WATCHED:
        reason = f"the node is {node.state}: stop its agent, or drain or retire the node first"
        return [NodeOrderRefused(node=order.node, order="ForgetNode", reason=reason)]
    return [NodeForgotten(node=order.node, by=order.by, reason=order.reason)]
