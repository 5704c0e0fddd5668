"""Folds heartbeats into node facts, depths into levels, everything into a score, alarms and due letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from health.core import small
from health.core.capacity import SET_POINT, STEP_S, Controller
from health.core.node import NODE, Node, beat, silence
from health.core.picture import HealthPicture, Lane
from health.core.pressure import Limits, next_level
from health.core.redriving import abandoned, redrives, stalled
from sparring.contracts import fingerprint
from sparring.contracts.base import Fact
from sparring.contracts.health import (
    AlarmCleared,
    AlarmRaised,
    BackpressureChanged,
    CapacityRetargeted,
    HealthScored,
    ObservationLost,
    ObservationRegained,
)
from sparring.contracts.node_agent import DrainAgent
from sparring.contracts.parts import FACTORS, Term
from sparring.contracts.readings import Heartbeat, ServiceBeat
from sparring.decider import Action, Append, Context, Decider, Send
from sparring.subjects import Ref, token

GRADES = ((0.80, "healthy"), (0.60, "degraded"), (0.40, "unhealthy"), (0.0, "critical"))
SERVICES = ("health", "lifecycle", "pipeline", "selfplay-orch", "sync", "training-slots")


def plan(ctx: Context) -> Sequence[Action]:
    picture: HealthPicture = ctx.picture
    return [
        *nodes(ctx, picture),
        *drains(picture),
        *capacity(ctx, picture),
        *queues(ctx, picture),
        *redrives(ctx, picture.all.letters),
        *scored(ctx, picture),
        *alarms(ctx, picture),
    ]


def append(decider: Decider[Any], id: str, decide: Callable[[Any], Sequence[Fact]]) -> Append:
    ref = decider.ref(id)

    def on_states(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        return decide(states[ref])

    return Append([(decider, id)], on_states)


# ---- nodes


def heartbeats(ctx: Context) -> dict[str, tuple[Heartbeat, float]]:
    """The last beat of each node and its age in seconds."""
    return {one.data.node: (one.data, one.age_s) for one in ctx.readings.values() if isinstance(one.data, Heartbeat)}


def nodes(ctx: Context, picture: HealthPicture) -> Iterable[Action]:
    beats = heartbeats(ctx)
    fresh = {name: one for name, (one, age_s) in beats.items() if age_s < ctx.settings.suspect_s}
    sharing = Counter(one.machine or name for name, one in fresh.items())
    for name, one in fresh.items():
        known = picture.all.nodes.get(name, Node())
        agents = sharing[one.machine or name]
        if beat(name, one, known, fingerprint(), agents):
            yield append(NODE, name, lambda state, name=name, one=one, agents=agents: beat(  # type: ignore[misc]
                name, one, state, fingerprint(), agents))  # fmt: skip
    yield from silences(ctx, picture, beats)


def silent_s(ctx: Context, name: str, beats: Mapping[str, tuple[Heartbeat, float]]) -> float:
    """Silence counts only while this process was connected, and starts again when it reconnects."""
    age_s = beats[name][1] if name in beats else ctx.watch.started_s
    return min(age_s, ctx.watch.connected_s, ctx.watch.started_s)


def silences(ctx: Context, picture: HealthPicture, beats: Mapping[str, tuple[Heartbeat, float]]) -> Iterable[Action]:
    watched = {
        name: node for name, node in picture.all.nodes.items() if node.state in ("healthy", "suspected", "draining")
    }
    quiet = {name: silent_s(ctx, name, beats) for name in watched}
    silent = [name for name, seconds in quiet.items() if seconds >= ctx.settings.suspect_s]
    until = picture.all.watching.lost_until
    many = len(watched) >= ctx.settings.observers_least and len(silent) > ctx.settings.silent_share * len(watched)
    if many and until is None:
        lost_until = ctx.now + timedelta(seconds=ctx.settings.observation_s)
        fact = ObservationLost(silent=len(silent), nodes=len(watched), until=lost_until)
        yield append(small.WATCH, "main", lambda state: [fact] if state.lost_until is None else [])
        return
    if until is not None and not many:
        yield append(small.WATCH, "main", lambda state: [ObservationRegained()] if state.lost_until else [])
    if until is not None and ctx.now < until:
        return
    limits = (ctx.settings.suspect_s, ctx.settings.lost_s)
    for name in silent:
        if silence(name, watched[name], quiet[name], *limits):
            yield append(NODE, name, lambda state, name=name: silence(name, state, quiet[name], *limits))  # type: ignore[misc]


def drains(picture: HealthPicture) -> Iterable[Action]:
    for name, grace_s in picture.all.draining.items():
        node = picture.all.nodes[name]
        yield Send(DrainAgent(node=name, grace_s=grace_s, reason="drained"), key=f"drain-{name}-{node.boot}")


def capacity(ctx: Context, picture: HealthPicture) -> Iterable[Action]:
    """One controller per node, a step every 30 s: seats follow the machine's load."""
    for name, (one, age_s) in heartbeats(ctx).items():
        node = picture.all.nodes.get(name, Node())
        if node.state != "healthy" or age_s > ctx.settings.suspect_s:
            continue
        controller, stepped_at = picture.controllers.get(name, (Controller(float(node.seats)), ctx.now))
        if name in picture.controllers and (ctx.now - stepped_at).total_seconds() < STEP_S:
            continue
        most = max(1, 2 * node.class_seats) if one.seats is None else one.seats
        controller = controller.step(one.resources.cpu_share, 1, most)
        picture.controllers[name] = controller, ctx.now
        seats = controller.seats(node.seats, one.resources.cpu_share, 1, most)
        if seats == node.seats:
            continue
        terms = (
            Term(name="load", value=one.resources.cpu_share, limit=SET_POINT),
            Term(name="output", value=round(controller.output, 3)),
            Term(name="integral", value=round(controller.integral, 3)),
            Term(name="age s", value=round(age_s, 1)),
        )
        fact = CapacityRetargeted(node=name, seats=seats, before=node.seats, terms=terms)
        yield append(NODE, name, partial(_unless_moved, fact))


def _unless_moved(fact: CapacityRetargeted, node: Node) -> Sequence[Fact]:
    return [fact] if node.seats == fact.before and node.state == "healthy" else []


# ---- queues


def depths(lane: Lane, now: datetime) -> dict[str, tuple[float, Limits]]:
    """Every queue of a lane: its depth and its limits."""
    assert lane.spec is not None
    rules = lane.spec.backpressure
    since = now - timedelta(seconds=300)
    recent = [(at, games) for at, games in lane.produced if at > since]
    span = max(60.0, (now - recent[0][0]).total_seconds()) if recent else 300.0
    rate = sum(games for _, games in recent) / span
    soft = rules.pending_games_soft or max(1_000.0, 60 * rate)
    hard = rules.pending_games_hard or max(5_000.0, 300 * rate)
    return {
        "training-data": (
            float(max(0, lane.positions - lane.consumed)),
            Limits(rules.training_data_positions_soft, rules.training_data_positions_hard),
        ),
        "pending-games": (float(sum(lane.pending.values())), Limits(soft, max(soft, hard))),
        "sync": (float(len(lane.unstored)), Limits(100, 500)),
        "evaluation": (float(len(lane.gates)), Limits(50, 200)),
    }


def queues(ctx: Context, picture: HealthPicture) -> Iterable[Action]:
    full = disk_low(ctx)
    for name, lane in picture.all.lanes.items():
        if lane.spec is None:
            continue
        for queue, (depth, limits) in depths(lane, ctx.now).items():
            id = f"{name}-{queue}"
            before = picture.all.queues.get(id, small.Queue()).level
            # a nearly full disk stops what fills it
            level = "stop" if full and queue == "pending-games" else next_level(depth, limits, before)
            if level == before:
                continue
            fact = BackpressureChanged(
                queue=id, lane=name, name=queue, level=level, before=before, factor=FACTORS[level], depth=depth,
                soft=limits.soft, hard=limits.hard, age_s=0.0,
            )  # fmt: skip
            yield append(small.QUEUE, id, lambda state, fact=fact: [fact] if state.level == fact.before else [])  # type: ignore[misc]


def disk_low(ctx: Context) -> list[str]:
    """Nodes whose disk is nearly full."""
    least = ctx.settings.disk_least_bytes
    return [
        name for name, (one, age_s) in heartbeats(ctx).items() if age_s < 30 and one.resources.disk_free_bytes < least
    ]


# ---- score and alarms


def service_beats(ctx: Context) -> dict[str, tuple[ServiceBeat, float]]:
    """The freshest beat of each service."""
    found: dict[str, tuple[ServiceBeat, float]] = {}
    for one in ctx.readings.values():
        if isinstance(one.data, ServiceBeat):
            known = found.get(one.data.service)
            if known is None or one.age_s < known[1]:
                found[one.data.service] = (one.data, one.age_s)
    return found


def parts(ctx: Context, picture: HealthPicture) -> tuple[float, tuple[Term, ...]]:
    """.40 nodes + .25 breakers + .20 errors + .15 recovery, each in [0, 1]."""
    counted = [node for node in picture.all.nodes.values() if node.state not in ("drained", "draining", "")]
    healthy = sum(node.state == "healthy" for node in counted) / len(counted) if counted else 1.0
    beats = service_beats(ctx)
    handled = sum(one.handled for one, _ in beats.values())
    failed = sum(one.failed for one, _ in beats.values())
    errors = handled / (handled + failed) if handled + failed else 1.0
    letters_ = picture.all.letters.values()
    recovery = sum(one.state != "abandoned" for one in letters_) / len(letters_) if letters_ else 1.0
    named = {"nodes": healthy, "breakers": 1.0, "errors": errors, "recovery": recovery}
    weights = {"nodes": 0.40, "breakers": 0.25, "errors": 0.20, "recovery": 0.15}
    value = sum(weights[name] * one for name, one in named.items())
    if any(silent(ctx, name, beats) for name in SERVICES):
        value = min(value, 0.79)
    return value, tuple(Term(name=name, value=round(one, 4)) for name, one in named.items())


def silent(ctx: Context, service: str, beats: Mapping[str, tuple[ServiceBeat, float]]) -> bool:
    """A service is silent after 15 s in which this process could have heard it."""
    heard = min(ctx.watch.connected_s, ctx.watch.started_s)
    age_s = beats[service][1] if service in beats else heard
    return bool(min(age_s, heard) >= ctx.settings.service_silent_s)


def scored(ctx: Context, picture: HealthPicture) -> Iterable[Action]:
    value, terms = parts(ctx, picture)
    grade = next(name for least, name in GRADES if value >= least)
    known = picture.all.score
    if known.at is not None and (ctx.now - known.at).total_seconds() < ctx.settings.score_s:
        return
    if grade == known.grade and abs(value - known.value) <= 0.05:
        return
    fact = HealthScored(value=round(value, 4), grade=grade, before=known.grade, terms=terms)
    yield append(small.SCORE, "main", lambda state: [fact] if state.at == known.at else [])


Severity = Literal["note", "warning", "critical"]


def causes(ctx: Context, picture: HealthPicture) -> dict[str, tuple[str, Severity, str, str]]:
    """Everything that needs a person now: cause to (about, severity, text, remedy)."""
    found: dict[str, tuple[str, Severity, str, str]] = {}
    beats = service_beats(ctx)
    for service in SERVICES:
        if silent(ctx, service, beats):
            found[f"service-{service}"] = (service, "critical", f"{service} does not beat",
                                           f"start it: uv run --package {service} {service}")  # fmt: skip
        elif service in beats and beats[service][0].loop_lag_s > 1:
            found[f"lag-{service}"] = (service, "warning", f"its event loop stood still for {beats[service][0].loop_lag_s:.1f} s",
                                       "give the machine more cores, or move agents off it")  # fmt: skip
    for name, node in picture.all.nodes.items():
        if node.state == "lost":
            found[f"node-{token(name)}"] = (name, "warning", f"node {name} is lost", "start its agent, or forget it")
        if node.state == "incompatible":
            found[f"build-{token(name)}"] = (name, "warning", f"node {name} runs another build: it gets no work",
                                             "install the same build there")  # fmt: skip
    for name in disk_low(ctx):
        found[f"disk-{token(name)}"] = (name, "critical", f"node {name} has nearly no disk left: self-play stops",
                                        "free disk space there")  # fmt: skip
    for one in stalled(ctx):
        why = f"{one.unanswered} of {one.limit} messages wait for an answer" if one.pulled else "nobody pulls from it"
        found[f"stalled-{token(one.consumer)}"] = (one.consumer, "critical", f"{why}, {one.waiting} more are behind",
                                                   "start or restart its service; `spar dlq ls` shows what fails")  # fmt: skip
    for consumer, count in abandoned(picture.all.letters).items():
        found[f"abandoned-{token(consumer)}"] = (consumer, "critical", f"{count} dead letters were tried five times in vain",
                                                 f"spar dlq ls --consumer {consumer}, mend the cause, then redrive or discard")  # fmt: skip
    if picture.all.letters:
        count = len(picture.all.letters)
        found["dead-letters"] = ("DLQ", "warning", f"{count} dead letters wait", "spar dlq ls, then redrive or discard")
    late = timedelta(seconds=ctx.settings.overdue_s)
    for name, lane in picture.all.lanes.items():
        if lane.deadline_at is not None and ctx.now > lane.deadline_at + late:
            found[f"overdue-{token(name)}"] = (name, "critical", f"{lane.iteration} waits past its deadline",
                                               f"spar why {name}")  # fmt: skip
    return found


def alarms(ctx: Context, picture: HealthPicture) -> Iterable[Action]:
    """One cause, one alarm; repeated at most once an hour; cleared when the cause is gone."""
    now_true = causes(ctx, picture)
    repeat = timedelta(seconds=ctx.settings.alarm_repeat_s)
    for cause, (about, severity, text, remedy) in now_true.items():
        known = picture.all.alarms.get(cause, small.Alarm())
        if known.raised and known.at is not None and ctx.now < known.at + repeat:
            continue
        times = known.times + 1 if known.raised else 1
        fact = AlarmRaised(alarm=cause, about=about, severity=severity, text=text, remedy=remedy, times=times)
        yield append(small.ALARM, cause, lambda state, fact=fact, at=known.at: [fact] if state.at == at else [])  # type: ignore[misc]
    for cause, alarm in picture.all.alarms.items():
        if alarm.raised and cause not in now_true:
            cleared = AlarmCleared(alarm=cause, about=cause)
            yield append(small.ALARM, cause, lambda state, fact=cleared: [fact] if state.raised else [])  # type: ignore[misc]
