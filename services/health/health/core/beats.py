"""What health hears: the last beat of every node and of every service's replica, looked through once a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sparring.contracts.readings import Heartbeat, ServiceBeat
from sparring.decider import Context, Reading

SERVICES = ("health", "lifecycle", "pipeline", "selfplay-orch", "sync", "training-slots")


@dataclass(frozen=True)
class Heard:
    """Beats with their age in seconds, by node, and by (service, replica)."""

    nodes: dict[str, tuple[Heartbeat, float]] = field(default_factory=dict)
    replicas: dict[tuple[str, str], tuple[ServiceBeat, float]] = field(default_factory=dict)

    def services(self) -> dict[str, tuple[ServiceBeat, float]]:
        """The freshest beat of each service."""
        found: dict[str, tuple[ServiceBeat, float]] = {}
        for (service, _), (one, age_s) in self.replicas.items():
            if service not in found or age_s < found[service][1]:
                found[service] = one, age_s
        return found


def heard(readings: Mapping[str, Reading]) -> Heard:
    found = Heard()
    nodes, replicas = found.nodes, found.replicas
    for one in readings.values():
        data = one.data
        if isinstance(data, Heartbeat):
            nodes[data.node] = data, one.age_s
        elif isinstance(data, ServiceBeat):
            replicas[data.service, data.replica] = data, one.age_s
    return found


def silent_s(ctx: Context, age_s: float | None) -> float:
    """Silence counts only while this process was connected, and starts again when it reconnects."""
    able = min(ctx.watch.connected_s, ctx.watch.started_s)
    return able if age_s is None else min(age_s, able)


def silent_services(ctx: Context, beats: Heard) -> list[str]:
    """Services of which no replica was heard for 15 s in which this process could have heard one."""
    ages = {service: age_s for service, (_, age_s) in beats.services().items()}
    return [name for name in SERVICES if silent_s(ctx, ages.get(name)) >= ctx.settings.service_silent_s]
