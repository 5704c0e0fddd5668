"""Whether a task may be placed: the checks in their order, of which the first that says no is the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from selfplay_orch.core.cluster import Breaker, Node
from selfplay_orch.core.index import Wish
from selfplay_orch.core.limits import WINDOW_S, spawned_within
from selfplay_orch.core.look import Look
from selfplay_orch.settings import KindRules
from sparring.contracts.lanes import KindNeeds, LaneSpec
from sparring.contracts.parts import TaskSpec, Term
from sparring.decider import Context

UNHEARD = "no fresh reading"
# silence proves nothing to a process that could not have heard for so long
TOO_EARLY = "listening too short"
SILENT = (UNHEARD, TOO_EARLY)
STOPPED_BY = {
    "running": (),
    "paused": ("selfplay", "train", "tune"),
    "draining": None,
    "halted": None,
}


def wish_of(spec: TaskSpec, *, orphaned: bool = False) -> Wish:
    return Wish(spec.kind, spec.lane, spec.gpu, spec.memory_bytes, spec.disk_bytes, orphaned)


def wish_for(kind: str, lane: LaneSpec) -> Wish:
    """What a task of the kind for the lane would need."""
    needs = lane.needs.get(kind, KindNeeds())
    return Wish(kind, lane.name, needs.gpu, needs.memory_bytes, needs.disk_bytes)


@dataclass(frozen=True)
class Denial:
    """The first check that said no, with its numbers; `step` is its place in the order, `everywhere` says that no
    other node would do."""

    reason: str
    actual: float
    limit: float
    step: int = 0
    everywhere: bool = False


@dataclass(frozen=True)
class Answer:
    """What `can_spawn` says; `terms` are the readings compared, with their age."""

    allowed: bool
    reason: str = ""
    actual: float = 0.0
    limit: float = 0.0
    terms: tuple[Term, ...] = ()


def can_spawn(kind: str, node: str, ctx: Context, spec: TaskSpec | None = None) -> Answer:
    """Whether a task of the kind may be placed on the node now; the planner asks the same checks. No side effect."""
    look = Look(ctx)
    wish = wish_of(spec) if spec is not None else Wish(kind)
    known = look.all.nodes.get(node)
    denial = Denial("unknown node", 0.0, 1.0) if known is None else first_no(look, wish, node, known)
    if denial is None:
        return Answer(True, terms=readings_of(look, node))
    return Answer(False, denial.reason, denial.actual, denial.limit, readings_of(look, node))


def first_no(look: Look, wish: Wish, name: str, node: Node) -> Denial | None:
    """The first check that denies the wish on the node."""
    return next((denial for check in CHECKS for denial in check(look, wish, name, node)), None)


def _switch(look: Look, wish: Wish, _: str, __: Node) -> Iterator[Denial]:
    stopped = STOPPED_BY.get(look.all.cluster)
    if stopped is None or wish.kind in stopped:
        yield Denial(f"cluster {look.all.cluster}", 1.0, 0.0, 0, everywhere=True)


def _rate(look: Look, wish: Wish, _: str, node: Node) -> Iterator[Denial]:
    if not wish.orphaned and look.spawns_left(wish.kind) <= 0:
        spawned = spawned_within(look.picture.quota(wish.kind), look.now, WINDOW_S)
        yield Denial("spawn rate", float(spawned), float(look.spawns_per_minute), 1, everywhere=True)
    if node.failed_at is not None:
        since = (look.now - node.failed_at).total_seconds()
        if since < look.settings.cooldown_s:
            yield Denial("cool-down", round(since, 3), look.settings.cooldown_s, 1)


def _health(look: Look, wish: Wish, name: str, node: Node) -> Iterator[Denial]:
    if not node.usable:
        yield Denial(f"node {node.state}", 0.0, 1.0, 2)
    if node.kinds and wish.kind not in node.kinds:
        yield Denial("kind not taken there", 0.0, 1.0, 2)
    if is_open(look, node.breaker, len(look.taken.get(name, {}))):
        yield Denial("node breaker", float(node.breaker.failures), float(node.breaker.limit), 2)
    lane = look.all.lanes.get(wish.lane)
    breaker = lane.breakers.get(wish.kind) if lane is not None else None
    if breaker is not None and is_open(look, breaker, look.lane_kinds[wish.kind, wish.lane]):
        yield Denial("breaker", float(breaker.failures), float(breaker.limit), 2)


def is_open(look: Look, breaker: Breaker, running: int) -> bool:
    """Open, or half-open with its one trial under way."""
    return breaker.until is not None and (look.now < breaker.until or running > 0)


def seat_no(taken: Mapping[str, str], kind: str, rules: KindRules, seats: int, reserved: int) -> Denial | None:
    """Whether the node has a seat: the kind's own limit, and the capacity for all kinds together.

    `reserved` seats on top of the capacity are the pipeline's: self-play never takes them, and gives way only to what
    goes beyond them.
    """
    same = sum(one == kind for one in taken.values())
    if same >= rules.per_node:
        return Denial("node limit", float(same), float(rules.per_node), 3)
    others = sum(one != "selfplay" for one in taken.values())
    if kind == "selfplay":
        room = seats - max(0, others - reserved)
        return Denial("capacity", float(same), float(max(0, room)), 3) if same >= room else None
    most = seats + reserved
    return Denial("capacity", float(len(taken)), float(most), 3) if len(taken) >= most else None


def seat_limit(kind: str, rules: KindRules, seats: int, reserved: int) -> int:
    """The most of the kind that the node ever runs."""
    return min(rules.per_node, seats if kind == "selfplay" else seats + reserved)


def _seat(look: Look, wish: Wish, name: str, node: Node) -> Iterator[Denial]:
    rules = look.settings.kind(wish.kind)
    denial = seat_no(look.taken.get(name, {}), wish.kind, rules, node.seats, look.settings.reserved_seats)
    if denial is not None:
        yield denial


def _cluster(look: Look, wish: Wish, _: str, __: Node) -> Iterator[Denial]:
    running, limit = look.running[wish.kind], look.cluster_limit(wish.kind)
    if running >= limit:
        yield Denial("cluster limit", float(running), float(limit), 4, everywhere=True)


def _resources(look: Look, wish: Wish, name: str, node: Node) -> Iterator[Denial]:
    yield from _lifetime(look, wish, node)
    if wish.gpu and not node.gpus:
        yield Denial("GPU", 0.0, 1.0, 5)
    beat, settings = look.fresh(name), look.settings
    if beat is None:
        # the last check says so
        return
    found = beat.data.resources
    needed = wish.disk_bytes + settings.disk_reserve_bytes
    if found.disk_free_bytes < needed:
        yield Denial("disk", float(found.disk_free_bytes), float(needed), 5)
    used = 1 - found.memory_available_bytes / max(1, found.memory_total_bytes)
    if used >= settings.most_memory:
        yield Denial("memory", round(used, 3), settings.most_memory, 5)
    if found.memory_available_bytes < wish.memory_bytes:
        yield Denial("free memory", float(found.memory_available_bytes), float(wish.memory_bytes), 5)
    if found.foreign_cpu_share >= settings.most_cpu:
        yield Denial("CPU", round(found.foreign_cpu_share, 3), settings.most_cpu, 5)


def _lifetime(look: Look, wish: Wish, node: Node) -> Iterator[Denial]:
    if not node.ephemeral:
        return
    if not look.settings.kind(wish.kind).on_ephemeral:
        yield Denial("ephemeral node", 1.0, 0.0, 5)
    left, (_, p90) = look.life_left(node), look.estimate(wish.kind, wish.lane, node)
    # self-play is sized to the node's life instead
    if wish.kind != "selfplay" and p90 > left:
        yield Denial("expected life", round(p90, 1), round(left, 1), 5)


def _pressure(look: Look, wish: Wish, _: str, __: Node) -> Iterator[Denial]:
    lane = look.all.lanes.get(wish.lane)
    if lane is None:
        return
    factor = lane.factor(wish.kind)
    if factor <= 0:
        yield Denial("back-pressure", factor, 0.0, 6)
    most = look.most_seats(lane)
    if wish.kind == "selfplay" and factor < 1 and look.lane_seats[wish.lane] >= most:
        yield Denial("back-pressure", float(look.lane_seats[wish.lane]), float(most), 6)


def _heard(look: Look, _: Wish, name: str, __: Node) -> Iterator[Denial]:
    """No check may pass for want of a number: a node that does not beat may be gone, and health too."""
    if look.fresh(name) is not None:
        return
    beat, listened_s, limit = look.beat(name), look.listened_s, look.settings.reading_known_s
    if listened_s < limit:
        yield Denial(TOO_EARLY, round(listened_s, 1), limit, 7)
    else:
        # a node without any reading was silent for as long as this process listens, at least
        yield Denial(UNHEARD, round(beat.age_s if beat is not None else listened_s, 1), limit, 7)


Check = Callable[[Look, Wish, str, Node], Iterator[Denial]]
CHECKS: tuple[Check, ...] = (_switch, _rate, _health, _seat, _cluster, _resources, _pressure, _heard)


def readings_of(look: Look, node: str) -> tuple[Term, ...]:
    """The readings that a grant rests on, and their age."""
    beat = look.beat(node)
    if beat is None:
        return ()
    found = beat.data.resources
    return (
        Term(name="CPU of others", value=round(found.foreign_cpu_share, 3), limit=look.settings.most_cpu),
        Term(name="memory free bytes", value=float(found.memory_available_bytes)),
        Term(name="disk free bytes", value=float(found.disk_free_bytes)),
        Term(name="age s", value=round(beat.age_s, 1)),
    )
