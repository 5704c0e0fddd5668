"""Measures the score's parts, and says what of it speaks for a pause."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from health.core.beats import Heard, silent_services
from health.core.breakers import closed_share
from health.core.node import WATCHED
from health.core.picture import HealthPicture
from health.core.score import SCORE, Parts
from health.core.switch import Condition
from sparring.contracts.base import Fact
from sparring.contracts.health import HealthScored
from sparring.contracts.parts import Term
from sparring.decider import Append, Context
from sparring.subjects import Ref

HOUR = timedelta(hours=1)
SAID_AGAIN = 0.05
# healthy of those not drained or leaving
COUNTED = ("healthy", "suspected", "incompatible", "lost")


def parts(ctx: Context, picture: HealthPicture, beats: Heard) -> Parts:
    healthy = stays = 0
    for node in picture.all.nodes.values():
        if node.state == "healthy":
            healthy, stays = healthy + 1, stays + 1
        elif node.state in COUNTED:
            stays += 1
    silent = silent_services(ctx, beats)
    return Parts(
        nodes=healthy / stays if stays else 1.0,
        breakers=closed_share(picture),
        errors=errors(ctx, picture, beats, silent),
        recovery=recovered_share(picture, ctx.now),
        silent=tuple(silent),
    )


def errors(ctx: Context, picture: HealthPicture, beats: Heard, silent: Sequence[str]) -> float:
    """Handlers' success over five minutes; a service that is silent scores 0 for its share of the services."""
    picture.errors.seconds = ctx.settings.errors_s
    picture.errors.note(beats, ctx.now)
    services = len({service for service, _ in beats.replicas} | set(silent)) or 1
    return picture.errors.of().success * (1 - len(silent) / services)


def recovered_share(picture: HealthPicture, now: datetime) -> float:
    """Of the attempts that ended within the last hour, those that helped; 1 while none was tried."""
    ended = [good for at, good in picture.all.recovered if at > now - HOUR]
    return sum(ended) / len(ended) if ended else 1.0


def scored(ctx: Context, picture: HealthPicture, now: Parts) -> Iterable[Append]:
    """Said on every change of grade, and when the value moved by .05."""
    known = picture.all.score
    if known.at is not None and (ctx.now - known.at).total_seconds() < ctx.settings.score_s:
        return
    if now.grade == known.grade and abs(now.value - known.value) <= SAID_AGAIN:
        return
    fact = HealthScored(value=now.value, grade=now.grade, before=known.grade, terms=now.terms)
    yield Append([(SCORE, "main")], partial(_unless_scored, fact, known.at))


def _unless_scored(fact: HealthScored, at: datetime | None, states: Mapping[Ref, Any]) -> Sequence[Fact]:
    return [fact] if states[SCORE.ref("main")].at == at else []


def lost_lately(picture: HealthPicture, now: datetime) -> tuple[int, int]:
    """Nodes that were lost within the last hour, and those together with the ones that are here."""
    here = lost = 0
    for node in picture.all.nodes.values():
        here += node.state in WATCHED
        lost += node.state == "lost" and node.since is not None and node.since > now - HOUR
    return lost, here + lost


def condition(ctx: Context, picture: HealthPicture, now: Parts) -> Condition:
    """Pauses below .40, with more than half of the nodes lost, or with ten errors in five minutes which are at least a
    tenth of what was handled; the score has to be .60 for a while before it goes on."""
    settings = ctx.settings
    lost, counted = lost_lately(picture, ctx.now)
    handled = picture.errors.of()
    reasons = []
    if now.value < settings.pause_below:
        reasons.append(f"the score is {now.value:.2f}, below {settings.pause_below:.2f}")
    if lost > settings.pause_lost_share * counted:
        reasons.append(f"{lost} of {counted} nodes are lost")
    if handled.failed >= settings.pause_errors and handled.success < 1 - settings.pause_error_share:
        reasons.append(f"handlers failed {handled.failed} times within {settings.errors_s:.0f} s")
    terms = (
        *now.terms,
        Term(name="score", value=now.value, limit=settings.pause_below),
        Term(name="lost nodes", value=float(lost), limit=round(settings.pause_lost_share * counted, 1)),
        Term(name="errors", value=float(handled.failed), limit=float(settings.pause_errors)),
    )
    if now.value < settings.resume_at or reasons:
        picture.good_since = None
    elif picture.good_since is None:
        picture.good_since = ctx.now
    return Condition(tuple(reasons), terms, picture.good_since)
