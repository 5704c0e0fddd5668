"""The pool of training slots: who holds one, who waits, who is held back."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Held:
    """The lane may train. The token is the sequence of the claim's fact: it only ever rises."""

    holder: str
    token: int
    until: datetime
    since: datetime
    lease_s: float


@dataclass(frozen=True)
class Waiting:
    """A claim in the queue."""

    lane: str
    holder: str
    priority: int
    lease_s: float
    since: datetime
    expires_at: datetime


@dataclass(frozen=True)
class Pool:
    """`served` is the sequence at which each lane was last served: it decides whose turn it is."""

    held: dict[str, Held] = field(default_factory=dict)
    queue: tuple[Waiting, ...] = ()
    served: dict[str, int] = field(default_factory=dict)
    held_back: dict[str, datetime] = field(default_factory=dict)
