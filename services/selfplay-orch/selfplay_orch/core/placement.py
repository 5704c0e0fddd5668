"""Placing a task: one batch over the task, its node and its kind's quota, decided again on their newest states."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from selfplay_orch.core.admission import TOO_EARLY, UNHEARD, Denial, first_no, readings_of, seat_limit, seat_no, wish_of
from selfplay_orch.core.index import Wish
from selfplay_orch.core.limits import NODE, QUOTA, Quota, Seats, Standing, denial_key, spawn_rate_left, without
from selfplay_orch.core.look import Look
from selfplay_orch.core.task import TASK, Task
from sparring.contracts.base import Fact
from sparring.contracts.parts import TaskSpec, Term
from sparring.contracts.selfplay_orch import SeatTaken, SpawnAdmitted, TaskAssigned, TaskDenied, TaskRequested
from sparring.decider import Action, Append
from sparring.subjects import Ref

OWN = "selfplay-orch"
# gone in a second, or with the next beat: not worth a fact
PASSING = ("cool-down", TOO_EARLY)
REFUSED = timedelta(seconds=1)
# what another lane would perhaps not be told
FOR_ONE_LANE = {"breaker", "back-pressure", "expected life"}


def place_requested(look: Look) -> Iterable[Action]:
    """What was asked for: lost work first, then by the fair order; a wish that was refused is not tried again."""
    refused: dict[Wish, Denial] = {}
    closed: dict[tuple[str, bool], Denial] = {}
    for name, task in in_fair_order(look, refused):
        if look.full or task.spec is None:
            return
        wish = wish_of(task.spec, orphaned=task.orphaned)
        denial = closed.get((wish.kind, wish.orphaned))
        if denial is None:
            node, denial, terms = best_node(look, wish, task.avoid)
            if node:
                yield placement(look, name, task.spec, task, node)
                continue
            assert denial is not None
            if denial.everywhere:
                closed[wish.kind, wish.orphaned] = denial
            refused[wish] = denial
            yield from deny(look, wish.kind, "", wish.lane, denial, terms)
        else:
            refused[wish] = denial
            yield from deny(look, wish.kind, "", wish.lane, denial)


def in_fair_order(look: Look, refused: Container[Wish] = ()) -> Iterator[tuple[str, Task]]:
    """Lost work first, older first. Then by when it was asked for, less its kind's head start; a kind that has fewer
    running than are reserved for it starts earlier still. What shares a refused wish is left out.

    The bound: nothing is overtaken by what was asked for more than `overtaking_s` after it.
    """
    heads: list[tuple[bool, datetime, str, Wish, int]] = []
    head_starts = {wish: timedelta(seconds=head_start_s(look, wish)) for wish in look.index.queues}

    def push(wish: Wish, place: int) -> None:
        queue = look.index.queues[wish]
        while place < len(queue) and not look.may_start(look.all.tasks[queue[place][1]]):
            place += 1
        if place < len(queue):
            asked, name = queue[place]
            heapq.heappush(heads, (not wish.orphaned, asked - head_starts[wish], name, wish, place))

    for wish in list(look.index.queues):
        push(wish, 0)
    while heads:
        _, _, name, wish, place = heapq.heappop(heads)
        if wish in refused:
            continue
        yield name, look.all.tasks[name]
        push(wish, place + 1)


def head_start_s(look: Look, wish: Wish) -> float:
    """How much earlier than it was requested a task with the wish counts as requested."""
    if wish.orphaned:
        return 0.0
    rules = look.settings.kind(wish.kind)
    reserve = look.settings.reserve_head_start_s if look.running[wish.kind] < rules.reserved else 0.0
    return rules.head_start_s + reserve


def overtaking_s(look: Look) -> float:
    """The bound of the fair order, in seconds."""
    most = max(one.head_start_s for one in look.settings.kinds.values())
    return most + look.settings.reserve_head_start_s


@dataclass
class Refusal:
    """What a scan of all nodes came to, and when; until `until` only nodes that changed since are asked again."""

    until: datetime
    version: int
    denial: Denial
    where: str
    terms: tuple[Term, ...]


def best_node(look: Look, wish: Wish, avoid: str = "") -> tuple[str, Denial | None, tuple[Term, ...]]:
    """The node with the most room of those that pass every check; else the denial that came furthest."""
    known = _remembered(look, wish)
    if known is not None:
        node, denial = _asked_again(look, wish, known, avoid)
        return (node, denial, ()) if node or denial else ("", _refused(look, wish, known), known.terms)
    reasons: Counter[str] = Counter({f"node {state}": n for state, n in look.index.states.items()
                                     if n > 0 and state != "healthy"})  # fmt: skip
    state = max(reasons, default="")
    furthest, where = (Denial(state, 0.0, 1.0, 2), "") if state else (Denial("no node", 0.0, 1.0, -1), "")
    second = ""
    for name in _by_preference(look, wish):
        denial = first_no(look, wish, name, look.all.nodes[name])
        if denial is None:
            if name != avoid:
                return name, None, ()
            second = name
            continue
        reasons[denial.reason] += 1
        if denial.step > furthest.step or (not where and denial.step >= furthest.step):
            furthest, where = denial, name
        if denial.everywhere:
            break
    if second:
        return second, None, ()
    terms = tuple(Term(name=f"nodes: {one}", value=count) for one, count in sorted(reasons.items()))
    refusal = Refusal(look.now + REFUSED, look.index.version, furthest, where, terms)
    if not furthest.everywhere:
        look.index.hopeless[wish if reasons.keys() & FOR_ONE_LANE else replace(wish, lane="")] = refusal
    return "", _refused(look, wish, refusal), terms


def _remembered(look: Look, wish: Wish) -> Refusal | None:
    """What the last scan for the wish came to, or one for another lane that has the same needs: nodes that nobody hears are
    not asked for each lane anew. From then on each wish remembers for itself which changed nodes it has asked."""
    own: Refusal | None = look.index.hopeless.get(wish)
    lane = look.all.lanes.get(wish.lane)
    if own is not None and look.now < own.until:
        return own
    if lane is not None and (wish.kind in lane.breakers or lane.factor(wish.kind) <= 0):
        return None
    any_lanes: Refusal | None = look.index.hopeless.get(replace(wish, lane=""))
    if any_lanes is None or look.now >= any_lanes.until:
        return None
    own = look.index.hopeless[wish] = replace(any_lanes)
    return own


def _by_preference(look: Look, wish: Wish) -> Iterator[str]:
    """Usable nodes, least load first; those with a card last for what needs none."""
    with_card, without = (look.index.by_load[card].ordered for card in (True, False))
    if wish.kind in ("selfplay", "train"):
        groups = [heapq.merge(with_card, without)]
    else:
        groups = [iter(with_card), iter(without)] if wish.gpu else [iter(without), iter(with_card)]
    placed = look.taken.placed
    later: list[tuple[float, str]] = []
    for group in groups:
        for load, name in group:
            while later and later[0] <= (load, name):
                yield heapq.heappop(later)[1]
            if name in placed:
                seats = max(1, look.all.nodes[name].seats)
                heapq.heappush(later, (len(placed[name]) / seats, name))
            else:
                yield name
        while later:
            yield heapq.heappop(later)[1]


def _asked_again(look: Look, wish: Wish, known: Refusal, avoid: str) -> tuple[str, Denial | None]:
    """The first of the nodes that changed since the refusal and pass now."""
    for name in look.index.touched_since(known.version):
        node = look.all.nodes[name]
        if name == avoid or not node.usable:
            continue
        denial = first_no(look, wish, name, node)
        if denial is None:
            return name, None
        if denial.everywhere:
            return "", denial
    known.version = look.index.version
    return "", None


def _refused(look: Look, wish: Wish, refusal: Refusal) -> Denial:
    if refusal.where:
        _keep_room(look, wish, refusal.denial, refusal.where)
    return refusal.denial


def _keep_room(look: Look, wish: Wish, denial: Denial, name: str) -> None:
    """Self-play stays off one node whose memory the waiting task will fit into once self-play there has ended."""
    beat = look.beat(name)
    if denial.reason not in ("memory", "free memory") or wish.kind == "selfplay" or beat is None:
        return
    fits = wish.memory_bytes <= look.settings.most_memory * beat.data.resources.memory_total_bytes
    if fits and "selfplay" in look.taken.get(name, {}).values():
        look.held.add(name)


def placement(look: Look, name: str, spec: TaskSpec, task: Task | None, node_name: str) -> Append:
    """`task` is None where self-play is minted. Counts in this look at once; admitted only on the newest states."""
    node, kind, settings = look.all.nodes[node_name], spec.kind, look.settings
    attempt = (task.attempt if task else 0) + 1
    seat = f"{name}-{attempt}"
    look.place(seat, node_name, kind, spec.lane)
    gone_here = look.ended(look.picture.seats(node_name).taken)
    gone = tuple(look.index.gone.get(kind, ()))
    rules, cluster_limit, per_minute = settings.kind(kind), look.cluster_limit(kind), look.spawns_per_minute
    limit = seat_limit(kind, rules, node.seats, settings.reserved_seats)
    terms = readings_of(look, node_name)
    own, place, guard = TASK.ref(name), NODE.ref(node_name), QUOTA.ref(kind)

    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        now: Task = states[own]
        seats: Seats = states[place]
        quota: Quota = states[guard]
        if (now.state != "requested" or now.attempt != attempt - 1) if task else bool(now.state):
            return []
        taken = without(seats.taken, gone_here)
        freed = tuple(one for one in gone if one in quota)
        running = len(quota) - len(freed)
        if seat_no(taken, kind, rules, node.seats, settings.reserved_seats) or running >= cluster_limit:
            return []
        if not now.orphaned and spawn_rate_left(quota, look.now, per_minute) <= 0:
            return []
        same = sum(what == kind for what in taken.values())
        minted = [TaskRequested(task=name, spec=spec, by=OWN, max_attempts=rules.max_attempts)] if not task else []
        return [
            *minted,
            TaskAssigned(
                task=name, attempt=attempt, node=node_name, boot=node.boot, seat_limit=limit, terms=terms
            ),
            SeatTaken(
                node=node_name, task=seat, kind=kind, running=same + 1, limit=limit,
                freed=tuple(one for one in gone_here if one in seats.taken),
            ),
            SpawnAdmitted(
                kind=kind, task=seat, node=node_name, running=running + 1, limit=cluster_limit, freed=freed,
            ),
        ]  # fmt: skip

    return Append(
        [(TASK, name), (NODE, node_name), (QUOTA, kind)],
        decide,
        # no trace of a task's own: those that wait together are placed together
        correlation=spec.iteration,
        joins=f"placement of {kind}",
    )


def deny(look: Look, kind: str, node: str, lane: str, denial: Denial, terms: tuple[Term, ...] = ()) -> Iterable[Action]:
    """A standing denial is one fact until its reason changes; one that was lifted meanwhile is said again."""
    key = denial_key(lane, node)
    if denial.reason in PASSING or (kind, lane, node) in look.said:
        return
    look.said.add((kind, lane, node))
    known = look.picture.quota(kind).denied.get(key)
    if known is not None and not _news(look, known, denial, look.all.placed_at.get(f"{kind} {key}")):
        return
    fact = TaskDenied(kind=kind, node=node, lane=lane, reason=denial.reason, actual=denial.actual, limit=denial.limit,
                      terms=terms)  # fmt: skip
    ref = QUOTA.ref(kind)

    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        quota: Quota = states[ref]
        return [fact] if quota.denied.get(key) == known else []

    yield Append([(QUOTA, kind)], decide)


def _news(look: Look, known: Standing, denial: Denial, lifted_at: datetime | None) -> bool:
    """Whether the denial says more than the one that was said last."""
    said_s = (look.now - known.at).total_seconds()
    if known.reason == denial.reason:
        return lifted_at is not None and lifted_at > known.at and said_s >= look.settings.deny_again_s
    # some nodes are silent while the others deny for a reason of their own: the two would take turns, a fact each time
    return denial.reason != UNHEARD or said_s >= look.settings.reading_known_s
