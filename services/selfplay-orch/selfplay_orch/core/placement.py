"""Placing a task: one batch over the task, its node and its kind's quota, decided again on their newest states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from selfplay_orch.core.admission import Denial, Wish, first_no, readings_of, seat_limit, seat_no, wish_of
from selfplay_orch.core.limits import NODE, QUOTA, Quota, Seats, denial_key, spawn_rate_left, without
from selfplay_orch.core.look import Look
from selfplay_orch.core.task import TASK, Task
from sparring.contracts.base import Fact
from sparring.contracts.parts import TaskSpec, Term
from sparring.contracts.selfplay_orch import SeatTaken, SpawnAdmitted, TaskAssigned, TaskDenied, TaskRequested
from sparring.decider import Action, Append
from sparring.subjects import Ref

OWN = "selfplay-orch"
# gone in a second: not worth a fact
PASSING = ("cool-down",)


def place_requested(look: Look) -> Iterable[Action]:
    """What was asked for: lost work first, then by the fair order; a wish that was refused is not tried again."""
    refused: dict[Wish, Denial] = {}
    closed: dict[tuple[str, bool], Denial] = {}
    for name, task in in_fair_order(look):
        if look.full or task.spec is None:
            return
        wish = wish_of(task.spec, orphaned=task.orphaned)
        denial = closed.get((wish.kind, wish.orphaned)) or refused.get(wish)
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
        elif wish not in refused:
            refused[wish] = denial
            yield from deny(look, wish.kind, "", wish.lane, denial)


def in_fair_order(look: Look) -> list[tuple[str, Task]]:
    """Lost work first, older first. Then by when it was asked for, less its kind's head start; a kind that has fewer
    running than are reserved for it starts earlier still.

    The bound: nothing is overtaken by what was asked for more than `overtaking_s` after it.
    """

    def key(one: tuple[str, Task]) -> tuple[bool, datetime, str]:
        name, task = one
        asked = task.requested_at or look.now
        if task.orphaned or task.spec is None:
            return False, asked, name
        rules = look.settings.kind(task.spec.kind)
        head_start = rules.head_start_s
        if look.running[task.spec.kind] < rules.reserved:
            head_start += look.settings.reserve_head_start_s
        return True, asked - timedelta(seconds=head_start), name

    return sorted(look.waiting, key=key)


def overtaking_s(look: Look) -> float:
    """The bound of the fair order, in seconds."""
    most = max(one.head_start_s for one in look.settings.kinds.values())
    return most + look.settings.reserve_head_start_s


def best_node(look: Look, wish: Wish, avoid: str = "") -> tuple[str, Denial | None, tuple[Term, ...]]:
    """The node with the most room of those that pass every check; else the denial that came furthest."""
    found: list[tuple[bool, bool, float, str]] = []
    reasons: Counter[str] = Counter()
    furthest, where = Denial("no node", 0.0, 1.0, -1), ""
    for name, node in look.all.nodes.items():
        denial = first_no(look, wish, name, node)
        if denial is None:
            wasteful = bool(node.gpus) != wish.gpu and wish.kind not in ("selfplay", "train")
            found.append((name == avoid, wasteful, len(look.taken.get(name, {})) / max(1, node.seats), name))
            continue
        reasons[denial.reason] += 1
        if denial.step > furthest.step:
            furthest, where = denial, name
        if denial.everywhere:
            break
    if found:
        return min(found)[3], None, ()
    _keep_room(look, wish, furthest, where)
    return "", furthest, tuple(Term(name=f"nodes: {one}", value=count) for one, count in sorted(reasons.items()))


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
    gone = look.ended(look.picture.quota(kind).running)
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
        taken, running = without(seats.taken, gone_here), without(quota.running, gone)
        if seat_no(taken, kind, rules, node.seats, settings.reserved_seats) or len(running) >= cluster_limit:
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
                kind=kind, task=seat, node=node_name, running=len(running) + 1, limit=cluster_limit,
                freed=tuple(one for one in gone if one in quota.running),
            ),
        ]  # fmt: skip

    return Append([(TASK, name), (NODE, node_name), (QUOTA, kind)], decide, correlation=spec.iteration)


def deny(look: Look, kind: str, node: str, lane: str, denial: Denial, terms: tuple[Term, ...] = ()) -> Iterable[Action]:
    """A standing denial is one fact until its reason changes; one that was lifted meanwhile is said again."""
    key = denial_key(lane, node)
    if denial.reason in PASSING or (kind, lane, node) in look.said:
        return
    look.said.add((kind, lane, node))
    known = look.picture.quota(kind).denied.get(key)
    if known is not None and known.reason == denial.reason:
        lifted_at = look.all.placed_at.get(f"{kind} {key}")
        lifted = lifted_at is not None and lifted_at > known.at
        if not lifted or (look.now - known.at).total_seconds() < look.settings.deny_again_s:
            return
    fact = TaskDenied(kind=kind, node=node, lane=lane, reason=denial.reason, actual=denial.actual, limit=denial.limit,
                      terms=terms)  # fmt: skip
    ref = QUOTA.ref(kind)

    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        quota: Quota = states[ref]
        return [fact] if quota.denied.get(key) == known else []

    yield Append([(QUOTA, kind)], decide)
