"""Health's whole plan: beats into node facts, failures into breakers, depths into levels, all of it into score and alarms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from health.core.alarms import alarms, causes
from health.core.beats import heard
from health.core.breakers import breakers
from health.core.controlling import capacity
from health.core.leaving import forgotten
from health.core.nodes import nodes
from health.core.picture import HealthPicture
from health.core.queues import machines, queues
from health.core.recoveries import recoveries
from health.core.redriving import redrives
from health.core.scoring import condition, parts, scored
from health.core.switch import switching
from health.core.threshold import HEARTBEAT, heartbeat_limit
from sparring.decider import Action, Context

# looking through everything costs time in proportion to the nodes: the pause between two looks grows with them
NODES_PER_S = 5_000
STEPS_EVERY_S = 5.0


def plan(ctx: Context) -> Sequence[Action]:
    """Called after every batch of facts and at every tick; looks through everything twice a second at most."""
    picture: HealthPicture = ctx.picture
    every_s = max(ctx.settings.look_s, len(picture.all.nodes) / NODES_PER_S)
    if not picture.due("everything", every_s, ctx.now):
        return []
    return list(_looked(ctx, picture))


def _looked(ctx: Context, picture: HealthPicture) -> Iterable[Action]:
    beats = heard(ctx.readings)
    # what places work again comes first, what only tells people last
    yield from nodes(ctx, picture, beats)
    yield from breakers(ctx, picture)
    found = machines(ctx, picture, beats)
    yield from queues(ctx, picture, found)
    now = parts(ctx, picture, beats)
    yield from switching(ctx, picture.all.cluster, condition(ctx, picture, now))
    if picture.due("capacity", STEPS_EVERY_S, ctx.now):
        yield from capacity(ctx, picture, beats)
        yield from recoveries(ctx, picture, beats)
        yield from forgotten(ctx, picture)
    yield from heartbeat_limit(ctx, picture.all.thresholds.get(HEARTBEAT), picture.all.silences)
    yield from redrives(ctx, picture.all.letters)
    yield from scored(ctx, picture, now)
    yield from alarms(ctx, picture, causes(ctx, picture, beats, now, found))
