"""The pool of training slots: who holds one, who waits, who is held back."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sparring.decider import replace


@dataclass(frozen=True)
class Held:
    """The lane may train. The token is the sequence of the claim's fact: it only ever rises.

    `asked_at` is when the holder was asked to give way, `give_way_by` until when its lease may still be renewed.
    """

    holder: str
    token: int
    until: datetime
    since: datetime
    lease_s: float
    asked_at: datetime | None = None
    give_way_by: datetime | None = None

    @property
    def ends_at(self) -> datetime:
        """When the slot is free without the holder's doing: a lease never gets shorter, not by a preemption either."""
        return max(self.until, self.give_way_by) if self.give_way_by else self.until


@dataclass(frozen=True)
class Waiting:
    """A claim in the queue; `sequence` is that of the fact that put it there."""

    lane: str
    holder: str
    priority: int
    lease_s: float
    since: datetime
    expires_at: datetime
    sequence: int = 0


@dataclass(frozen=True)
class Hold:
    """Why a lane gets fewer turns, by how much, until when."""

    reason: str
    severity: str
    factor: float
    until: datetime
    by: str = ""


@dataclass(frozen=True)
class Served:
    """When a lane's last slot ended, at which sequence, and how long it had been held."""

    at: datetime
    held_s: float
    sequence: int


@dataclass(frozen=True)
class Pool:
    """`served` is the sequence at which each lane was last served, `last` how its last slot ended: whose turn it is.

    `holds` are by lane and cause; `revisions` by `<lane> <cause>`: the newest order about a hold counts.
    """

    held: dict[str, Held] = field(default_factory=dict)
    queue: tuple[Waiting, ...] = ()
    served: dict[str, int] = field(default_factory=dict)
    holds: dict[str, dict[str, Hold]] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    last: dict[str, Served] = field(default_factory=dict)

    def without(self, lane: str) -> Pool:
        """The pool with the lane's slot free."""
        return replace(self, held={name: one for name, one in self.held.items() if name != lane})

    @property
    def newest(self) -> int:
        """A sequence above all that the pool remembers: that of the fact being decided, as far as order goes."""
        ended = [one.sequence for one in self.last.values()]
        return max([*self.served.values(), *ended, *(one.sequence for one in self.queue)], default=0) + 1

    def trained_until(self, lane: str) -> int:
        """The sequence up to which the lane had a slot; 0 when it never had one."""
        last = self.last.get(lane)
        return max(self.served.get(lane, 0), last.sequence if last is not None else 0)

    def capacity(self, lane: str, now: datetime) -> float:
        """The share of its turns that the lane keeps now: the product of its holds."""
        factor = 1.0
        for hold in self.holds.get(lane, {}).values():
            factor *= hold.factor if now < hold.until else 1.0
        return factor

    def rests_until(self, lane: str, now: datetime) -> datetime | None:
        """Until when the lane gets no slot; None when it may have one now.

        A lane that keeps the share f of its turns rests h·(1/f − 1) after it trained for h.
        """
        found: datetime | None = None
        current = [one for one in self.holds.get(lane, {}).values() if now < one.until]
        paused = [one.until for one in current if one.factor <= 0]
        if paused:
            return max(paused)
        factor, last = self.capacity(lane, now), self.last.get(lane)
        if factor < 1 and last is not None:
            found = last.at + timedelta(seconds=last.held_s * (1 / factor - 1))
            found = min(found, max(one.until for one in current))
        return found if found is not None and found > now else None
