"""Everything that needs somebody, as causes: one cause, one alarm; repeated at most hourly; cleared when it is gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Literal

from health.core.alarm import ALARM, Alarm
from health.core.beats import Heard
from health.core.picture import HealthPicture
from health.core.queues import Machines
from health.core.redriving import abandoned, stalled
from health.core.score import Parts
from sparring.contracts.base import Fact
from sparring.contracts.health import AlarmCleared, AlarmRaised
from sparring.contracts.parts import how_to_start
from sparring.decider import Append, Context
from sparring.subjects import Ref, token

Severity = Literal["note", "warning", "critical"]
PERSON = "a person"
# more lost nodes than that are one cause
SINGLY = 10
LEAST_HANDLED = 20
# a lane whose engine fails verification plays on: its tasks succeed
LEAST_JUDGED, MOST_UNUSABLE = 10, 0.1
# states of a node that works, or will in a moment
WORKING = ("healthy", "suspected")
NOBODY_S = 60.0


@dataclass(frozen=True)
class Cause:
    """Why somebody is needed: about what, how bad, whose turn it is, and what to do."""

    id: str
    about: str
    severity: Severity
    text: str
    remedy: str
    whose: str = PERSON


def causes(ctx: Context, picture: HealthPicture, beats: Heard, now: Parts, machines: Machines) -> Iterator[Cause]:
    yield from of_services(ctx, picture, beats, now)
    yield from of_nodes(ctx, picture)
    yield from of_readings(ctx, picture, beats, machines)
    yield from of_breakers(picture)
    yield from of_lanes(ctx, picture)
    yield from of_letters(ctx, picture)


def of_services(ctx: Context, picture: HealthPicture, beats: Heard, now: Parts) -> Iterator[Cause]:
    for name in now.silent:
        yield Cause(f"service-{name}", name, "critical", f"{name} does not beat", how_to_start(name))
    for (name, replica), (beat, _) in beats.replicas.items():
        if beat.stuck and name not in now.silent:
            yield Cause(f"stuck-{name}-{token(replica)}", name, "critical",
                        f"replica {replica} takes in no facts: {beat.stuck}",
                        f"spar services; look into the log of {name}, mend the cause and restart it")  # fmt: skip
    newest = max((beat.position for beat, _ in beats.replicas.values()), default=0)
    for name, (beat, _) in beats.services().items():
        if name in now.silent:
            continue
        if beat.loop_lag_s > ctx.settings.loop_lag_s:
            yield Cause(f"lag-{name}", name, "warning", f"its event loop stood still for {beat.loop_lag_s:.1f} s",
                        "give the machine more cores, or move agents off it")  # fmt: skip
        if newest - beat.position > ctx.settings.behind_facts:
            yield Cause(f"behind-{name}", name, "warning", f"its read model is {newest - beat.position} facts behind",
                        f"spar services; look into the log of {name}", name)  # fmt: skip
        handled = picture.errors.of(name)
        tried = handled.good + handled.failed
        if tried >= LEAST_HANDLED and handled.success < ctx.settings.handler_success:
            yield Cause(f"failing-{name}", name, "warning",
                        f"its handlers failed {handled.failed} of {tried} times within {ctx.settings.errors_s:.0f} s",
                        "spar dlq ls shows what they fail on")  # fmt: skip


def of_nodes(ctx: Context, picture: HealthPicture) -> Iterator[Cause]:
    yield from _nobody_works(ctx, picture)
    by_state: dict[str, list[str]] = {"lost": [], "incompatible": [], "retired": []}
    for name, node in picture.all.nodes.items():
        if node.state in by_state:
            by_state[node.state].append(name)
    lost = by_state["lost"]
    if len(lost) > SINGLY:
        yield Cause("nodes-lost", "nodes", "critical", f"{len(lost)} nodes are lost",
                    "spar nodes; start their agents, or spar nodes forget NODE")  # fmt: skip
    for name in lost if len(lost) <= SINGLY else ():
        yield Cause(f"node-{token(name)}", name, "warning", f"node {name} is lost",
                    f"start its agent, or spar nodes forget {name}")  # fmt: skip
    for name in by_state["incompatible"]:
        yield Cause(f"build-{token(name)}", name, "warning", f"node {name} runs another build: it gets no work",
                    f"spar why {name} names what differs; install the same build there")  # fmt: skip
    for name in by_state["retired"]:
        yield Cause(f"retired-{token(name)}", name, "note", f"node {name} is retired: it gets no work",
                    f"repair it and start its agent anew, or spar nodes forget {name}")  # fmt: skip


def _nobody_works(ctx: Context, picture: HealthPicture) -> Iterator[Cause]:
    """Lanes that want work, and for a minute no node that could do it: nothing else would say so once dead nodes are forgotten."""
    wanting = [one for one in picture.all.lanes.values() if one.spec is not None and one.spec.enabled]
    nodes = picture.all.nodes.values()
    if not wanting or any(node.state in WORKING for node in nodes):
        return
    known = [node.since for node in nodes] + [one.registered_at for one in wanting]
    since = max((at for at in known if at is not None), default=None)
    if since is None or ctx.now < since + timedelta(seconds=NOBODY_S):
        return
    counted = Counter(node.state for node in nodes)
    states = ", ".join(f"{count} {state}" for state, count in sorted(counted.items())) or "none has joined"
    yield Cause(
        "no-nodes", "nodes", "critical", f"no node can work: {states}", "spar nodes; start one: spar agent --nats URL"
    )


def of_readings(ctx: Context, picture: HealthPicture, beats: Heard, machines: Machines) -> Iterator[Cause]:
    for name, why in machines.critical.items():
        what = "disk" if why == "disk" else "memory"
        yield Cause(f"{what}-{token(name)}", name, "critical", f"node {name} has nearly no {what} left",
                    f"free {what} there")  # fmt: skip
    if machines.unknown:
        yield Cause("stale-readings", "readings", "warning",
                    f"the readings of {len(machines.unknown)} nodes are older than {ctx.settings.reading_known_s:.0f} s: "
                    f"unknown ({', '.join(machines.unknown[:3])})", "spar nodes; is the network between them and NATS up?")  # fmt: skip
    if picture.all.watching.lost_until is not None:
        yield Cause("observation-lost", "nodes", "critical", "so many nodes fell silent at once that nobody is given up",
                    "look at the network between the nodes and NATS", "health")  # fmt: skip
    for name, (beat, age_s) in beats.nodes.items():
        if beat.spooled_bytes > ctx.settings.spool_most_bytes and age_s < ctx.settings.reading_known_s:
            yield Cause(f"spool-{token(name)}", name, "warning",
                        f"node {name} holds {beat.spooled} unsent items, {beat.spooled_bytes / 1e9:.1f} GB",
                        "spar sync says why; is the artifact store reachable from there?", "sync")  # fmt: skip


def of_letters(ctx: Context, picture: HealthPicture) -> Iterator[Cause]:
    for one in stalled(ctx):
        why = f"{one.unanswered} of {one.limit} messages wait for an answer" if one.pulled else "nobody pulls from it"
        yield Cause(f"stalled-{token(one.consumer)}", one.consumer, "critical", f"{why}, {one.waiting} more are behind",
                    "start or restart its service; `spar dlq ls` shows what fails")  # fmt: skip
    for consumer, count in abandoned(picture.all.letters).items():
        yield Cause(f"abandoned-{token(consumer)}", consumer, "critical", f"{count} dead letters were tried five times in vain",
                    f"spar dlq ls --consumer {consumer}, mend the cause, then redrive or discard")  # fmt: skip
    if picture.all.letters:
        yield Cause("dead-letters", "DLQ", "warning", f"{len(picture.all.letters)} dead letters wait, or more since this was said",
                    "spar dlq stats; spar dlq ls, then redrive or discard")  # fmt: skip


def of_breakers(picture: HealthPicture) -> Iterator[Cause]:
    for id, one in picture.all.breakers.items():
        if one.state == "closed" or one.about is None or one.times < 2:
            continue
        about = one.about.node or f"{one.about.lane} {one.about.kind}"
        streak = picture.all.streaks.get(id)
        why = f": {streak.reason}" if streak is not None and streak.reason else ""
        yield Cause(f"breaker-{token(id)}", about, "warning", f"the breaker of {about} opened {one.times} times in a row{why}",
                    f"spar why {one.about.node}" if one.about.node else f"spar tasks --lane {one.about.lane}",
                    "health")  # fmt: skip
    for id, recovery in picture.all.recoveries.items():
        if recovery.state == "escalated":
            about = recovery.task or recovery.node
            yield Cause(f"escalated-{token(id)}", about, "critical",
                        f"{recovery.attempts} attempts did not help: {recovery.reason}", f"spar why {about}")  # fmt: skip


def of_lanes(ctx: Context, picture: HealthPicture) -> Iterator[Cause]:
    cluster = picture.all.cluster
    if cluster.automatic and cluster.state != "running":
        yield Cause("paused", "cluster", "critical", f"the cluster is {cluster.state} by itself: {cluster.reason}",
                    "repair the cause and it goes on, or spar resume to override for an hour", "health")  # fmt: skip
    late = timedelta(seconds=ctx.settings.overdue_s)
    for name, lane in picture.all.lanes.items():
        if lane.deadline_at is not None and ctx.now > lane.deadline_at + late:
            yield Cause(f"overdue-{token(name)}", name, "critical", f"{lane.iteration} waits past its deadline",
                        f"spar why {name}")  # fmt: skip
        if lane.passed and lane.spec is not None and "promote" not in lane.spec.auto:
            yield Cause(f"promote-{token(name)}", name, "warning",
                        f"{len(lane.passed)} models passed their gates and wait for a person",
                        f"spar why {name}; spar step {name} promote, or spar reject {name}")  # fmt: skip
        bad = lane.usable.count(False)
        if len(lane.usable) >= LEAST_JUDGED and bad > MOST_UNUSABLE * len(lane.usable):
            yield Cause(f"unusable-{token(name)}", name, "critical",
                        f"{bad} of its last {len(lane.usable)} batches are in quarantine or lost: {lane.unusable}",
                        f"spar data; spar why {name}")  # fmt: skip


def alarms(ctx: Context, picture: HealthPicture, now_true: Iterable[Cause]) -> Iterable[Append]:
    repeat = timedelta(seconds=ctx.settings.alarm_repeat_s)
    found = {one.id: one for one in now_true}
    for id, cause in found.items():
        known = picture.all.alarms.get(id, Alarm())
        if known.raised and known.at is not None and ctx.now < known.at + repeat:
            continue
        since = known.since if known.raised else ctx.now
        fact = AlarmRaised(alarm=id, about=cause.about, severity=cause.severity, text=cause.text, remedy=cause.remedy,
                           times=known.times + 1 if known.raised else 1, since=since, whose=cause.whose)  # fmt: skip
        yield Append([(ALARM, id)], partial(_unless_raised, fact, known))
    for id, alarm in picture.all.alarms.items():
        if alarm.raised and id not in found:
            yield Append([(ALARM, id)], partial(_if_raised, AlarmCleared(alarm=id, about=id)))


def _unless_raised(fact: AlarmRaised, known: Alarm, states: Mapping[Ref, Any]) -> Sequence[Fact]:
    return [fact] if states[ALARM.ref(fact.alarm)].at == known.at else []


def _if_raised(fact: AlarmCleared, states: Mapping[Ref, Any]) -> Sequence[Fact]:
    return [fact] if states[ALARM.ref(fact.alarm)].raised else []
