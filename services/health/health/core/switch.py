"""The cluster's switch: a person's, or automatic; an automatic pause never undoes what a person decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sparring.contracts.base import Fact
from sparring.contracts.health import ClusterSwitched, Switch, SwitchCluster, SwitchRefused
from sparring.contracts.parts import Term
from sparring.decider import Append, Context, Decider, Recorded
from sparring.subjects import Ref

HEALTH = "health"


@dataclass(frozen=True)
class Cluster:
    """`revision` is that of the newest person's order; until `override_until` nothing is switched automatically."""

    state: Switch = "running"
    revision: int = 0
    by: str = ""
    automatic: bool = False
    since: datetime | None = None
    override_until: datetime | None = None
    reason: str = ""

    def overridden(self, now: datetime) -> bool:
        return self.override_until is not None and now < self.override_until


def evolve(cluster: Cluster, recorded: Recorded) -> Cluster:
    match recorded.fact:
        case ClusterSwitched() as fact:
            return Cluster(
                fact.state, fact.revision, fact.by, fact.automatic, recorded.at, fact.override_until, fact.reason
            )
    return cluster


CLUSTER = Decider("health", "cluster", Cluster(), evolve)


def switch(order: SwitchCluster, cluster: Cluster, ctx: Context) -> list[Fact]:
    """An older revision than the newest is refused: orders that undo each other arrive in any order.

    Whoever starts again what health had paused overrides it: for a time, under a name.
    """
    if order.revision < cluster.revision:
        return [SwitchRefused(revision=order.revision, newest=cluster.revision, by=order.by)]
    against = cluster.automatic and order.state == "running"
    for_s = order.override_s if order.override_s is not None else (ctx.settings.override_s if against else None)
    takes_over = cluster.automatic or for_s is not None
    if order.state == cluster.state and not takes_over:
        return []
    until = ctx.now + timedelta(seconds=for_s) if for_s else None
    return [
        ClusterSwitched(
            state=order.state, before=cluster.state, revision=order.revision, by=order.by, reason=order.reason,
            override_until=until,
        )
    ]  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """What speaks for pausing now, and since when the score has been good enough to go on."""

    reasons: tuple[str, ...]
    terms: tuple[Term, ...]
    good_since: datetime | None


def automatic(cluster: Cluster, condition: Condition, ctx: Context) -> list[Fact]:
    """Pauses a running cluster that is in trouble; resumes only what it paused itself, once the score held."""
    settings = ctx.settings
    if not settings.automatic or cluster.overridden(ctx.now):
        return []
    if cluster.state == "running" and condition.reasons:
        return [_switched(cluster, "paused", "; ".join(condition.reasons), condition.terms)]
    held = condition.good_since is not None and ctx.now - condition.good_since >= timedelta(seconds=settings.resume_s)
    if cluster.state == "paused" and cluster.automatic and held and not condition.reasons:
        reason = f"the score was at least {settings.resume_at:.2f} for {settings.resume_s:.0f} s"
        return [_switched(cluster, "running", reason, condition.terms)]
    return []


def _switched(cluster: Cluster, state: Switch, reason: str, terms: tuple[Term, ...]) -> ClusterSwitched:
    # a person's older order must still be refused, a newer one obeyed: the revision stays theirs
    return ClusterSwitched(
        state=state,
        before=cluster.state,
        revision=cluster.revision,
        by=HEALTH,
        reason=reason,
        automatic=True,
        terms=terms,
    )


def switching(ctx: Context, cluster: Cluster, condition: Condition) -> Iterable[Append]:
    if automatic(cluster, condition, ctx):
        yield Append([(CLUSTER, "main")], partial(_again, condition, ctx))


def _again(condition: Condition, ctx: Context, states: Mapping[Ref, Any]) -> Sequence[Fact]:
    return automatic(states[CLUSTER.ref("main")], condition, ctx)
