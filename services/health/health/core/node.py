"""A node's life as its heartbeats tell it: joined, suspected, lost, draining."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sparring.contracts.base import Fact
from sparring.contracts.health import (
    CapacityRetargeted,
    DrainNode,
    NodeDrained,
    NodeDraining,
    NodeJoined,
    NodeLost,
    NodeRecovered,
    NodeSuspected,
)
from sparring.contracts.readings import Heartbeat
from sparring.decider import Context, Decider, Recorded

State = Literal["", "healthy", "incompatible", "suspected", "lost", "draining", "drained"]


@dataclass(frozen=True)
class Node:
    """`boot` is the agent's present life; a new one orphans at once what the old one ran."""

    state: State = ""
    boot: str = ""
    seats: int = 0
    class_seats: int = 0
    cores: float = 1.0
    machine: str = ""


def evolve(node: Node, recorded: Recorded) -> Node:
    match recorded.fact:
        case NodeJoined() as fact:
            state: State = "healthy" if fact.compatible else "incompatible"
            return Node(state, fact.boot, fact.seats, fact.seats, fact.cores, fact.machine)
        case NodeSuspected():
            return replace(node, state="suspected")
        case NodeRecovered():
            return replace(node, state="healthy")
        case NodeLost():
            return replace(node, state="lost")
        case NodeDraining():
            return replace(node, state="draining")
        case NodeDrained():
            return replace(node, state="drained")
        case CapacityRetargeted(seats=seats):
            return replace(node, seats=seats)
    return node


NODE = Decider("health", "node", Node(), evolve)


def beat(name: str, heart: Heartbeat, node: Node, fingerprint: str, sharing: int) -> list[Fact]:
    """What a heartbeat changes. `sharing` agents on one machine divide its budget."""
    if heart.boot != node.boot:
        if node.state not in ("healthy", "suspected", "draining", "incompatible"):
            return [joined(name, heart, fingerprint, sharing)]
        lost = NodeLost(node=name, boot=node.boot, reason="rebooted", silent_s=0, limit_s=0)
        return [lost, joined(name, heart, fingerprint, sharing)]
    if node.state == "lost":
        return [joined(name, heart, fingerprint, sharing)]
    if node.state == "suspected":
        return [NodeRecovered(node=name, boot=heart.boot, silent_s=0)]
    if node.state == "healthy" and heart.draining:
        return [NodeDraining(node=name, boot=heart.boot, reason="the agent says so", by=name, grace_s=0)]
    if node.state == "draining" and heart.draining and not heart.running and not heart.spooled:
        return [NodeDrained(node=name, boot=heart.boot)]
    return []


def joined(name: str, heart: Heartbeat, fingerprint: str, sharing: int) -> NodeJoined:
    found = heart.resources
    return NodeJoined(
        node=name,
        boot=heart.boot,
        build=heart.build,
        compatible=heart.contracts == fingerprint,
        ephemeral=heart.ephemeral,
        tags=heart.tags,
        kinds=heart.kinds,
        machine=heart.machine or name,
        cores=found.cores,
        memory_bytes=found.memory_total_bytes,
        gpus=tuple(gpu.name for gpu in found.gpus),
        seats=class_seats(heart, sharing),
    )


SEAT_BYTES = 2 * 1024**3
# datacentre cards, then consumer cards by generation: seats that a card keeps busy
GPU_SEATS = (("H100", 24), ("H200", 24), ("A100", 24), ("B200", 24), ("L40", 16), ("4090", 12), ("3090", 10), ("", 6))


def class_seats(heart: Heartbeat, sharing: int = 1) -> int:
    """Seats that a node starts with: by its cards, else .5 per core; 2 GB of memory each; at least one."""
    found = heart.resources
    by_gpu = sum(next(seats for name, seats in GPU_SEATS if name in gpu.name) for gpu in found.gpus)
    by_compute = by_gpu or 0.5 * found.cores
    by_memory = found.memory_total_bytes / SEAT_BYTES
    seats = max(1, int(min(by_compute, by_memory) / max(1, sharing)))
    return min(seats, heart.seats) if heart.seats else seats


def silence(name: str, node: Node, silent_s: float, suspect_s: float, lost_s: float) -> list[Fact]:
    """What silence changes; `silent_s` counts only while the watcher itself could hear."""
    if node.state in ("healthy", "draining", "incompatible") and silent_s >= lost_s:
        return [NodeLost(node=name, boot=node.boot, reason="silent", silent_s=round(silent_s, 1), limit_s=lost_s)]
    if node.state == "healthy" and silent_s >= suspect_s:
        return [NodeSuspected(node=name, boot=node.boot, silent_s=round(silent_s, 1), limit_s=suspect_s)]
    if node.state == "suspected" and silent_s >= lost_s:
        return [NodeLost(node=name, boot=node.boot, reason="silent", silent_s=round(silent_s, 1), limit_s=lost_s)]
    return []


def drain(order: DrainNode, node: Node, ctx: Context) -> list[Fact]:  # noqa: ARG001
    if node.state not in ("healthy", "suspected", "incompatible"):
        return []
    return [NodeDraining(node=order.node, boot=node.boot, reason=order.reason, by=order.by, grace_s=order.grace_s)]
