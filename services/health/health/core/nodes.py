"""Turns beats and silence into node facts, with a watcher that may itself be deaf."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from health.core.beats import Heard, silent_s
from health.core.node import NODE, WATCHED, Fits, Node, beat, silence
from health.core.picture import HealthPicture
from health.core.threshold import HEARTBEAT
from health.core.watch import WATCH
from sparring.contracts import fingerprint
from sparring.contracts.base import Fact
from sparring.contracts.health import ObservationLost, ObservationRegained
from sparring.contracts.node_agent import DrainAgent
from sparring.decider import Action, Append, Context, Send
from sparring.subjects import Ref

# node facts of one moment go into the log together: a machine room that comes or goes is a few appends
TOGETHER = 50

Decision = Callable[[Node], Sequence[Fact]]


def nodes(ctx: Context, picture: HealthPicture, beats: Heard) -> Iterable[Action]:
    decisions = {**_beats(ctx, picture, beats)}
    watch, silences = _silences(ctx, picture, beats)
    yield from watch
    yield from together({**silences, **decisions})
    yield from drains(picture)


def together(decisions: Mapping[str, Decision]) -> Iterable[Append]:
    names = list(decisions)
    for start in range(0, len(names), TOGETHER):
        yield _batch(names[start : start + TOGETHER], decisions)


def _batch(names: Sequence[str], decisions: Mapping[str, Decision]) -> Append:
    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        return [fact for name in names for fact in decisions[name](states[NODE.ref(name)])]

    return Append([(NODE, name) for name in names], decide)


def sharing(ctx: Context, picture: HealthPicture, beats: Heard) -> Counter[str]:
    """How many agents a machine has: those that beat, and those that are not given up yet."""
    machines = {name: node.machine for name, node in picture.all.nodes.items() if node.state in WATCHED}
    for name, (one, age_s) in beats.nodes.items():
        if age_s < ctx.settings.suspect_s:
            machines[name] = one.machine or name
    return Counter(machines.values())


def _beats(ctx: Context, picture: HealthPicture, beats: Heard) -> dict[str, Decision]:
    fits = Fits(fingerprint(), ctx.settings.builds)
    agents = sharing(ctx, picture, beats)
    found: dict[str, Decision] = {}
    for name, (one, age_s) in beats.nodes.items():
        if age_s >= ctx.settings.suspect_s:
            continue
        many = agents[one.machine or name]
        if beat(name, one, picture.all.nodes.get(name, Node()), fits, many, ctx.now):
            found[name] = lambda state, name=name, one=one, many=many: beat(name, one, state, fits, many, ctx.now)  # type: ignore[misc]
    return found


def lost_after_s(ctx: Context, picture: HealthPicture) -> float:
    """The heartbeat limit, as far as it has moved; never outside of what the settings allow."""
    moved = picture.all.thresholds.get(HEARTBEAT)
    limit = ctx.settings.lost_s if moved is None else moved.value
    return float(min(ctx.settings.lost_most_s, max(ctx.settings.lost_least_s, limit)))


def _silences(ctx: Context, picture: HealthPicture, beats: Heard) -> tuple[list[Action], dict[str, Decision]]:
    """Silence of single nodes is theirs; silence of many at once is the watcher's."""
    watched = {name: node for name, node in picture.all.nodes.items() if node.state in WATCHED}
    ages = {name: beats.nodes[name][1] if name in beats.nodes else None for name in watched}
    quiet = {name: silent_s(ctx, age_s) for name, age_s in ages.items()}
    silent = [name for name, seconds in quiet.items() if seconds >= ctx.settings.suspect_s]
    until = picture.all.watching.lost_until
    many = len(watched) >= ctx.settings.observers_least and len(silent) > ctx.settings.silent_share * len(watched)
    if many and until is None:
        lost_until = ctx.now + timedelta(seconds=ctx.settings.observation_s)
        fact = ObservationLost(silent=len(silent), nodes=len(watched), until=lost_until)
        return [_watch(lambda state: [fact] if state.lost_until is None else [])], {}
    watch: list[Action] = []
    if until is not None and not many:
        watch = [_watch(lambda state: [ObservationRegained()] if state.lost_until else [])]
    if until is not None and ctx.now < until:
        return watch, {}
    limits = (ctx.settings.suspect_s, lost_after_s(ctx, picture))
    found: dict[str, Decision] = {
        name: lambda state, name=name: silence(name, state, quiet[name], *limits)  # type: ignore[misc]
        for name in silent
        if silence(name, watched[name], quiet[name], *limits)
    }
    return watch, found


def _watch(decide: Callable[[Any], Sequence[Fact]]) -> Append:
    ref = WATCH.ref("main")
    return Append([(WATCH, "main")], lambda states: decide(states[ref]))


def drains(picture: HealthPicture) -> Iterable[Action]:
    """An agent whose node drains is told so, until it has left."""
    for name in picture.all.draining:
        node = picture.all.nodes[name]
        yield Send(DrainAgent(node=name, grace_s=node.grace_s, reason="drained"), key=f"drain-{name}-{node.boot}")
