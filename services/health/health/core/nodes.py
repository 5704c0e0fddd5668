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
from sparring.contracts.readings import Heartbeat
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
    known, suspect_s = picture.all.nodes, ctx.settings.suspect_s
    fresh = {
        name: one
        for name, (one, age_s) in beats.nodes.items()
        if age_s < suspect_s and not unchanged(known.get(name), one, fits)
    }
    agents = sharing(ctx, picture, beats) if fresh else Counter[str]()
    found: dict[str, Decision] = {}
    for name, one in fresh.items():
        many = agents[one.machine or name]
        if beat(name, one, known.get(name, Node()), fits, many, ctx.now):
            found[name] = lambda state, name=name, one=one, many=many: beat(name, one, state, fits, many, ctx.now)  # type: ignore[misc]
    return found


def unchanged(node: Node | None, heart: Heartbeat, fits: Fits) -> bool:
    """The common case, told quickly: a healthy node that says what it said before."""
    return (
        node is not None
        and node.state == "healthy"
        and node.boot == heart.boot
        and heart.contracts == fits.contracts
        and not (heart.draining or heart.notice or fits.builds)
    )


def lost_after_s(ctx: Context, picture: HealthPicture) -> float:
    """The heartbeat limit, as far as it has moved; never outside of what the settings allow."""
    moved = picture.all.thresholds.get(HEARTBEAT)
    limit = ctx.settings.lost_s if moved is None else moved.value
    return float(min(ctx.settings.lost_most_s, max(ctx.settings.lost_least_s, limit)))


def _silences(ctx: Context, picture: HealthPicture, beats: Heard) -> tuple[list[Action], dict[str, Decision]]:
    """Silence of single nodes is theirs; silence of many at once is the watcher's."""
    suspect_s, able = ctx.settings.suspect_s, silent_s(ctx, None)
    watched, quiet = 0, dict[str, float]()
    for name, node in picture.all.nodes.items():
        if node.state not in WATCHED:
            continue
        watched += 1
        known = beats.nodes.get(name)
        seconds = able if known is None else min(known[1], able)
        if seconds >= suspect_s:
            quiet[name] = seconds
    until = picture.all.watching.lost_until
    many = watched >= ctx.settings.observers_least and len(quiet) > max(1.0, ctx.settings.silent_share * watched)
    if many and until is None:
        lost_until = ctx.now + timedelta(seconds=ctx.settings.observation_s)
        fact = ObservationLost(silent=len(quiet), nodes=watched, until=lost_until)
        return [_watch(lambda state: [fact] if state.lost_until is None else [])], {}
    watch: list[Action] = []
    if until is not None and not many:
        watch = [_watch(lambda state: [ObservationRegained()] if state.lost_until else [])]
    if until is not None and ctx.now < until:
        return watch, {}
    limits = (suspect_s, lost_after_s(ctx, picture))
    found: dict[str, Decision] = {
        name: lambda state, name=name: silence(name, state, quiet[name], *limits)  # type: ignore[misc]
        for name, seconds in quiet.items()
        if silence(name, picture.all.nodes[name], seconds, *limits)
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
