"""A breaker per node, per task kind of a lane, and per link: open after failures in a row, then one trial."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sparring.backoff import doubled_s
from sparring.contracts.base import Fact
from sparring.contracts.health import BreakerClosed, BreakerHalfOpened, BreakerOpened, Scope
from sparring.decider import Decider, Recorded

JITTER = 0.1
SOURCES_KEPT = 4


@dataclass(frozen=True)
class About:
    """What a breaker guards."""

    scope: Scope
    node: str = ""
    lane: str = ""
    kind: str = ""

    @property
    def id(self) -> str:
        return f"kind-{self.lane}-{self.kind}" if self.scope == "kind" else f"{self.scope}-{self.node}"

    def fields(self) -> dict[str, Any]:
        return {"breaker": self.id, "scope": self.scope, "node": self.node, "lane": self.lane, "kind": self.kind}


@dataclass(frozen=True)
class Streak:
    """Failures in a row since the breaker last changed, whose they were, and whether anything succeeded since then."""

    about: About
    failures: int = 0
    sources: tuple[str, ...] = ()
    reason: str = ""
    succeeded: bool = False

    def failed(self, source: str, reason: str) -> Streak:
        sources = self.sources if source in self.sources else (*self.sources, source)[-SOURCES_KEPT:]
        return Streak(self.about, self.failures + 1, sources, reason[:200], False)


@dataclass(frozen=True)
class Breaker:
    """`times` are openings since it last closed; `until` is the deadline of the state that it is in."""

    state: Literal["closed", "open", "half-open"] = "closed"
    times: int = 0
    until: datetime | None = None
    since: datetime | None = None
    boot: str = ""
    about: About | None = None


def evolve(breaker: Breaker, recorded: Recorded) -> Breaker:
    match recorded.fact:
        case BreakerOpened() as fact:
            about = About(fact.scope, fact.node, fact.lane, fact.kind)
            return Breaker("open", fact.times, fact.until, recorded.at, fact.boot, about)
        case BreakerHalfOpened(until=until):
            return Breaker("half-open", breaker.times, until, recorded.at, breaker.boot, breaker.about)
        case BreakerClosed():
            return Breaker(since=recorded.at, about=breaker.about)
    return breaker


BREAKER = Decider("health", "breaker", Breaker(), evolve)


@dataclass(frozen=True)
class Rules:
    """`failures` in a row open it for `first_s`, doubling to `most_s`; times in seconds."""

    failures: int
    first_s: float
    most_s: float

    def open_s(self, id: str, times: int) -> float:
        """How long the breaker's opening of that number lasts: within 10 % by a hash of both, so that breakers which
        opened together don't try together, and every replica computes the same."""
        drawn = int(hashlib.sha256(f"{id} {times}".encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
        return doubled_s(self.first_s, times - 1, self.most_s) * (1 + JITTER * (2 * drawn - 1))


def next_facts(breaker: Breaker, streak: Streak, rules: Rules, boot: str, now: datetime) -> list[Fact]:
    """What the failures and successes since its last change, or its deadline, make of the breaker.

    `boot` is the node's present life: another one than that it opened for starts with a closed breaker.
    """
    about, due = streak.about, breaker.until is not None and now >= breaker.until
    if breaker.state != "closed" and about.scope == "node" and boot != breaker.boot:
        return [BreakerClosed(**about.fields(), times=breaker.times, reason="the node began a new life")]
    match breaker.state:
        case "closed" if streak.failures >= rules.failures and (about.scope != "node" or len(streak.sources) > 1):
            return [_opened(breaker, streak, rules, boot, now)]
        case "open" if due:
            until = now + timedelta(seconds=rules.most_s)
            return [BreakerHalfOpened(**about.fields(), times=breaker.times, until=until)]
        case "half-open" if streak.failures:
            return [_opened(breaker, streak, rules, boot, now)]
        case "half-open" if streak.succeeded:
            return [BreakerClosed(**about.fields(), times=breaker.times, reason="the trial succeeded")]
        case "half-open" if due:
            return [BreakerClosed(**about.fields(), times=breaker.times, reason="nothing was tried until its deadline")]
    return []


def _opened(breaker: Breaker, streak: Streak, rules: Rules, boot: str, now: datetime) -> BreakerOpened:
    times = breaker.times + 1
    return BreakerOpened(
        **streak.about.fields(),
        failures=streak.failures,
        limit=rules.failures if breaker.state == "closed" else 1,
        times=times,
        until=now + timedelta(seconds=rules.open_s(streak.about.id, times)),
        boot=boot,
        reason=streak.reason or "failed",
    )
