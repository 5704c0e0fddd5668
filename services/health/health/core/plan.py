"""Health's whole plan: beats into node facts, failures into breakers, depths into levels, all of it into score and alarms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from health.core.alarms import alarms, causes
from health.core.beats import Heard, heard
from health.core.breakers import breakers
from health.core.controlling import capacity
from health.core.handler_times import handler_limits
from health.core.leaving import forgotten
from health.core.nodes import nodes
from health.core.picture import HealthPicture
from health.core.queues import machines, of_lanes, of_nodes
from health.core.recoveries import recoveries
from health.core.redriving import redrives
from health.core.scoring import condition, parts, scored
from health.core.switch import switching
from health.core.threshold import HEARTBEAT, heartbeat_limit
from sparring.decider import Action, Context

# a look costs time in proportion to the nodes: the pause between two of them grows with them
LOOKED_AT_PER_S, MEASURED_PER_S = 5_000, 1_000
STEPS_EVERY_S = 5.0


def plan(ctx: Context) -> Sequence[Action]:
    """Called after every batch of facts and at every tick; looks for silence twice a second at most, with 10,000 nodes
    every 2 s; what only measures and tells waits longer there."""
    picture: HealthPicture = ctx.picture
    known = len(picture.all.nodes)
    if not picture.due("silence", max(ctx.settings.look_s, known / LOOKED_AT_PER_S), ctx.now):
        return []
    return list(_looked(ctx, picture, known / MEASURED_PER_S))


def _looked(ctx: Context, picture: HealthPicture, pause_s: float) -> Iterable[Action]:
    beats = heard(ctx.readings)
    # what places work again comes first, what only tells people last
    yield from nodes(ctx, picture, beats)
    yield from breakers(ctx, picture)
    yield from of_lanes(ctx, picture)
    if picture.due("seats", max(STEPS_EVERY_S, pause_s), ctx.now):
        yield from capacity(ctx, picture, beats)
        yield from recoveries(ctx, picture, beats)
        yield from forgotten(ctx, picture)
        yield from handler_limits(ctx, picture.all.thresholds, picture.handlers, beats)
    yield from heartbeat_limit(ctx, picture.all.thresholds.get(HEARTBEAT), picture.all.silences)
    yield from redrives(ctx, picture.all.letters)
    if picture.due("score", max(ctx.settings.look_s, pause_s), ctx.now):
        yield from _measured(ctx, picture, beats)


def _measured(ctx: Context, picture: HealthPicture, beats: Heard) -> Iterable[Action]:
    found = machines(ctx, picture, beats)
    yield from of_nodes(picture, found)
    now = parts(ctx, picture, beats)
    yield from switching(ctx, picture.all.cluster, condition(ctx, picture, now))
    yield from scored(ctx, picture, now)
    yield from alarms(ctx, picture, causes(ctx, picture, beats, now, found))
