"""A lane: its settings, and whether a person paused it."""

from __future__ import annotations

from dataclasses import dataclass

from sparring.contracts.base import Fact
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.pipeline import (
    LaneEdited,
    LaneOrderRefused,
    LanePaused,
    LaneRegistered,
    LaneResumed,
    PauseLane,
    RegisterLane,
    ResumeLane,
)
from sparring.decider import Context, Decider, Recorded, replace
from sparring.lane_file import lacking


@dataclass(frozen=True)
class Lane:
    """`revision` is that of the newest pause or resume: an older one is refused."""

    spec: LaneSpec | None = None
    paused: bool = False
    revision: int = 0


def evolve(lane: Lane, recorded: Recorded) -> Lane:
    match recorded.fact:
        case LaneRegistered(spec=spec) | LaneEdited(spec=spec):
            return replace(lane, spec=spec)
        case LanePaused(revision=revision):
            return replace(lane, paused=True, revision=revision)
        case LaneResumed(revision=revision):
            return replace(lane, paused=False, revision=revision)
    return lane


LANE = Decider("pipeline", "lane", Lane(), evolve)


def register(order: RegisterLane, lane: Lane, ctx: Context) -> list[Fact]:  # noqa: ARG001
    """Registers or edits; the same settings again change nothing."""
    named = f"the settings name lane {order.spec.name}" if order.spec.name != order.lane else ""
    reason = named or lacking(order.spec)
    if reason:
        return [LaneOrderRefused(lane=order.lane, order="RegisterLane", reason=reason)]
    if lane.spec is None:
        return [LaneRegistered(lane=order.lane, spec=order.spec)]
    if lane.spec == order.spec:
        return []
    changed = tuple(name for name in LaneSpec.model_fields if getattr(lane.spec, name) != getattr(order.spec, name))
    return [LaneEdited(lane=order.lane, spec=order.spec, changed=changed)]


def pause(order: PauseLane, lane: Lane, ctx: Context) -> list[Fact]:  # noqa: ARG001
    refused = _refused(order, lane)
    if refused or (lane.paused and order.revision == lane.revision):
        return refused
    return [LanePaused(lane=order.lane, revision=order.revision, by=order.by, reason=order.reason)]


def resume(order: ResumeLane, lane: Lane, ctx: Context) -> list[Fact]:  # noqa: ARG001
    refused = _refused(order, lane)
    if refused or not lane.paused:
        return refused
    return [LaneResumed(lane=order.lane, revision=order.revision, by=order.by)]


def _refused(order: PauseLane | ResumeLane, lane: Lane) -> list[Fact]:
    name = type(order).__name__
    if lane.spec is None:
        return [LaneOrderRefused(lane=order.lane, order=name, reason="no such lane; register it with spar lanes add")]
    if order.revision < lane.revision:
        reason = f"revision {order.revision} is older than {lane.revision}"
        return [LaneOrderRefused(lane=order.lane, order=name, reason=reason)]
    return []
