"""What the planner can be asked: the same checks and the same table of durations, without a side effect."""

from __future__ import annotations

from dataclasses import dataclass, replace

from selfplay_orch.core import admission
from selfplay_orch.core.admission import SILENT, Answer, first_no, wish_for
from selfplay_orch.core.durations import LEAST
from selfplay_orch.core.look import Look
from selfplay_orch.core.placement import best_node
from sparring.contracts.lanes import LaneSpec
from sparring.decider import Context
from sparring.errors import BadInput, CannotAnswer


@dataclass(frozen=True)
class Estimate:
    """Mean and p90 of the last finished tasks in seconds, with a fifth on top; `measured` below 3: the kind's default."""

    kind: str
    lane: str
    node_class: str
    mean_s: float
    p90_s: float
    measured: int


@dataclass(frozen=True)
class Slotting:
    """Whether and where a task would be placed now, and how long it would take there."""

    allowed: bool
    node: str = ""
    reason: str = ""
    actual: float = 0.0
    limit: float = 0.0
    mean_s: float = 0.0
    p90_s: float = 0.0


def can_spawn(ctx: Context, *, kind: str, node: str) -> Answer:
    """Whether a task of the kind may be placed on the node now. Raises BadInput for a node that never joined,
    CannotAnswer when nothing forbids it but its readings are not known."""
    look = Look(ctx)
    if node not in look.all.nodes:
        raise BadInput(f"node = {node!r} never joined; there are: {', '.join(sorted(look.all.nodes)) or 'none'}")
    answer = admission.can_spawn(kind, node, ctx)
    if answer.reason in SILENT:
        raise CannotAnswer(unknown(look, node))
    return answer


def unknown(look: Look, node: str) -> str:
    """Where the facts forbid nothing, and the readings of the node, or '' of every node that would do, are missing or old."""
    beat, limit = look.beat(node), look.settings.reading_known_s
    where = f"of node {node}" if node else "of each node that would do"
    if not node:
        age = "there is no fresh one"
    else:
        age = "there is none" if beat is None else f"the last one is {beat.age_s:.0f} s old"
    return (
        f"nothing in the facts forbids it, but disk, memory and CPU {where} are unknown: {age}, "
        f"readings count for {limit:g} s and are not kept; ask about now while the node beats"
    )


def can_schedule(ctx: Context, *, kind: str, lane: str, seconds: float | None = None) -> Slotting:
    """Whether a task of the kind for the lane would be placed now, and be done in time. `seconds` overrides how long it
    is expected to take. Raises BadInput for a lane that is not registered or offers no such kind."""
    look = Look(ctx)
    spec = spec_of(look, kind, lane)
    node, denial, _ = best_node(look, wish_for(kind, spec))
    if denial is not None and denial.reason in SILENT:
        raise CannotAnswer(unknown(look, ""))
    if denial is not None:
        return Slotting(False, "", denial.reason, denial.actual, denial.limit)
    mean_s, p90_s = look.estimate(kind, lane, look.all.nodes[node])
    mean_s, p90_s = (mean_s, p90_s) if seconds is None else (seconds, seconds)
    left = min(look.life_left(look.all.nodes[node]), look.settings.kind(kind).timeout_s)
    if p90_s > left:
        return Slotting(False, node, "longer than it may run", p90_s, left, mean_s, p90_s)
    return Slotting(True, node, mean_s=mean_s, p90_s=p90_s)


def estimate(ctx: Context, *, kind: str, lane: str, node: str = "") -> Estimate:
    """How long a task takes: on the node, else on the slowest class of nodes that could run it."""
    look = Look(ctx)
    spec_of(look, kind, lane)
    if node and node not in look.all.nodes:
        raise BadInput(f"node = {node!r} never joined; there are: {', '.join(sorted(look.all.nodes)) or 'none'}")
    nodes = [look.all.nodes[node]] if node else [one for one in look.all.nodes.values() if one.usable]
    if not nodes:
        raise CannotAnswer("no node is healthy: nobody knows on what it would run; name a node")
    found = []
    for one in nodes:
        mean_s, p90_s = look.estimate(kind, lane, one)
        measured = look.picture.durations.measured(kind, lane, one.node_class)
        found.append(Estimate(kind, lane, one.node_class, mean_s, p90_s, measured))
    return max(found, key=lambda one: (one.measured >= LEAST, one.p90_s))


def spec_of(look: Look, kind: str, lane: str) -> LaneSpec:
    registered = look.all.lanes.get(lane)
    if registered is None or registered.spec is None:
        there = sorted(name for name, one in look.all.lanes.items() if one.spec is not None)
        raise BadInput(f"lane = {lane!r} is not registered; there are: {', '.join(there) or 'none'}")
    if kind not in registered.spec.commands:
        offered = ", ".join(sorted(registered.spec.commands))
        raise BadInput(f"kind = {kind!r}: lane {lane} offers {offered}; add commands.{kind} to its lane file")
    spec: LaneSpec = registered.spec
    return spec


@dataclass(frozen=True)
class OnNode:
    """What a task of the kind for these lanes would be told on a node; `unknown`: nothing in the facts forbids it, and
    nobody knows the node's disk, memory and CPU."""

    kind: str
    lanes: tuple[str, ...]
    allowed: bool
    reason: str = ""
    actual: float = 0.0
    limit: float = 0.0
    unknown: bool = False


def denials(ctx: Context, *, node: str) -> list[OnNode]:
    """What tasks of each kind would be told on the node now, for every lane that may have some; lanes with the same answer
    stand together. Raises BadInput for a node that never joined."""
    look = Look(ctx)
    if node not in look.all.nodes:
        raise BadInput(f"node = {node!r} never joined; there are: {', '.join(sorted(look.all.nodes)) or 'none'}")
    found: dict[OnNode, list[str]] = {}
    for name, lane in sorted(look.all.lanes.items()):
        if lane.spec is None or not lane.spec.enabled or lane.paused:
            continue
        for kind in lane.spec.commands:
            if kind in look.settings.kinds and (kind != "selfplay" or lane.iteration):
                found.setdefault(_told(look, kind, name, lane.spec, node), []).append(name)
    return [replace(answer, lanes=tuple(lanes)) for answer, lanes in found.items()]


def _told(look: Look, kind: str, lane: str, spec: LaneSpec, node: str) -> OnNode:
    throttle = look.all.lanes[lane].factor(kind)
    if throttle <= 0:
        return OnNode(kind, (), False, "back-pressure", 0.0, 0.0)
    denial = first_no(look, wish_for(kind, spec), node, look.all.nodes[node])
    if denial is None:
        return OnNode(kind, (), True)
    if denial.reason in SILENT:
        return OnNode(kind, (), False, unknown(look, node), unknown=True)
    return OnNode(kind, (), False, denial.reason, denial.actual, denial.limit)
