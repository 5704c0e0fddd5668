"""How long services' handlers take, from beats that count since each process began; it moves their limits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from health.core.beats import Heard
from health.core.threshold import WINDOW, Bounds, Threshold, moving
from sparring.contracts.parts import handler_limit
from sparring.contracts.readings import ServiceBeat
from sparring.decider import Append, Context


@dataclass
class HandlerTimes:
    """`outcomes` say of each service's last handlings whether they ended well within its limit. They live on readings: a
    new process begins them anew, and so does a new limit."""

    outcomes: dict[str, tuple[bool, ...]] = field(default_factory=dict)
    _counted: dict[tuple[str, str], ServiceBeat] = field(default_factory=dict)
    _limits: dict[str, float] = field(default_factory=dict)

    def note(self, beats: Heard) -> None:
        for (service, replica), (beat, _) in beats.replicas.items():
            before = self._counted.get((service, replica), beat)
            self._counted[service, replica] = beat
            if beat.handler_s != self._limits.get(service):
                # what it counts up to here was under the limit before
                self._limits[service], self.outcomes[service] = beat.handler_s, ()
                continue
            anew = beat.up_s < before.up_s
            measured, within = (0, 0) if anew else (before.measured, before.within)
            self._took(service, beat.measured - measured, beat.within - within)

    def _took(self, service: str, ended: int, well: int) -> None:
        """More than a window's worth at once counts by its share."""
        if ended > WINDOW:
            ended, well = WINDOW, WINDOW * well // ended
        fresh = (True,) * well + (False,) * (ended - well)
        self.outcomes[service] = (*self.outcomes.get(service, ()), *fresh)[-WINDOW:]


def handler_limits(
    ctx: Context, known: dict[str, Threshold], times: HandlerTimes, beats: Heard
) -> Iterable[Append]:  # fmt: skip
    """One limit per service. It widens while handlers use it up, and narrows again, never below what the service declares:
    many quick orders say nothing of the rare long one that the declaration is for."""
    times.note(beats)
    for service, (beat, _) in beats.services().items():
        name, outcomes = handler_limit(service), times.outcomes.get(service, ())
        bounds = _bounds(ctx, beat)
        threshold = known.get(name)
        # what was seen under another limit says nothing of this one
        if threshold is not None and max(beat.handler_least_s, threshold.value) != beat.handler_s:
            continue
        yield from moving(name, threshold, bounds, outcomes, ctx.now)


def _bounds(ctx: Context, beat: ServiceBeat) -> Bounds:
    least = max(ctx.settings.handler_least_s, beat.handler_least_s)
    return Bounds(least, least, max(least, ctx.settings.handler_most_s), ctx.settings.handler_target)
