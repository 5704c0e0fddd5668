"""A batch of games and who has it: recorded, granted, stored and admitted, or quarantined, lost, retired."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sparring.contracts.base import Fact
from sparring.contracts.parts import Check
from sparring.contracts.sync import (
    BatchAdmitted,
    BatchLost,
    BatchQuarantined,
    BatchRetired,
    BatchStored,
    GamesRecorded,
    GamesRefused,
    RecordGames,
    ReportStored,
    ReportTransferFailed,
    SyncHastened,
    SyncNow,
    TransferFailed,
    TransferGranted,
)
from sparring.decider import Context, Decider, Recorded, replace

State = Literal["", "refused", "recorded", "granted", "admitted", "quarantined", "lost", "retired"]
LEAST_COVERAGE = 0.99


@dataclass(frozen=True)
class Batch:
    """Identity is (task, attempt); equal content from another cause is another batch. `iteration` is the one that it was
    played for: what becomes of it lies in that one's trace."""

    state: State = ""
    lane: str = ""
    node: str = ""
    ephemeral: bool = False
    model: str = ""
    sha256: str = ""
    bytes: int = 0
    games: int = 0
    positions: int = 0
    check: Check | None = None
    url: str = ""
    recorded_at: datetime | None = None
    grant: int = 0
    until: datetime | None = None
    failures: int = 0
    missing_since: datetime | None = None
    hastened_until: datetime | None = None
    iteration: str = ""


def evolve(batch: Batch, recorded: Recorded) -> Batch:
    match recorded.fact:
        case GamesRecorded() as fact:
            return Batch(
                "recorded", fact.lane, fact.node, fact.ephemeral, fact.model, fact.sha256, fact.bytes, fact.games,
                fact.positions, fact.check, recorded_at=recorded.at, iteration=recorded.correlation,
            )  # fmt: skip
        case GamesRefused():
            return replace(batch, state="refused")
        case TransferGranted(grant=grant, until=until):
            return replace(batch, state="granted", grant=grant, until=until)
        case TransferFailed(missing=missing):
            since = {None: batch.missing_since, True: batch.missing_since or recorded.at, False: None}[missing]
            return replace(batch, state="recorded", failures=batch.failures + 1, missing_since=since)
        case BatchStored(url=url):
            return replace(batch, url=url)
        case BatchAdmitted():
            return replace(batch, state="admitted")
        case BatchQuarantined():
            return replace(batch, state="quarantined")
        case BatchLost():
            return replace(batch, state="lost")
        case BatchRetired():
            return replace(batch, state="retired")
        case SyncHastened(until=until):
            return replace(batch, hastened_until=until)
    return batch


BATCH = Decider("sync", "batch", Batch(), evolve)


def record(order: RecordGames, batch: Batch, ctx: Context) -> list[Fact]:
    """A batch exists from here on; a record without evidence is refused. One that lies in the store is judged at once."""
    if batch.state:
        return []
    reason = _no_evidence(order)
    if reason:
        return [GamesRefused(batch=order.batch, lane=order.lane, reason=reason, node=order.node, sha256=order.sha256)]
    recorded = GamesRecorded.model_validate(order.model_dump(exclude={"url"}))
    if not order.url:
        return [recorded]
    report = ReportStored(batch=order.batch, node=order.node, url=order.url, sha256=order.sha256, bytes=order.bytes)
    return [recorded, *_judged(report, evolve(batch, Recorded(0, ctx.now, recorded)), ctx)]


def _no_evidence(order: RecordGames) -> str:
    if order.games == 0 or order.positions == 0:
        return f"{order.games} games and {order.positions} positions: a completion carries its evidence"
    if order.batch != f"{order.task}-{order.attempt}":
        return f"batch {order.batch} is not {order.task}-{order.attempt}: identity is the cause"
    if order.check.ok and order.check.games and order.check.games != order.games:
        return f"{order.games} games are reported, {order.check.games} were found in the file"
    return ""


def stored(order: ReportStored, batch: Batch, ctx: Context) -> list[Fact]:
    """The agent says that the store has it: the hash was recomputed (`ctx.gathered`), the content is judged. What did not
    arrive as it was sent is brought again. What counted as lost is found again."""
    if batch.state not in ("recorded", "granted", "lost"):
        return []
    if ctx.gathered and ctx.gathered[0] != order.sha256:
        reason = f"SHA-256 is {ctx.gathered[0][:12]} in the store, {order.sha256[:12]} was sent"
        return [_not_arrived(order, batch, reason)]
    return _judged(order, batch, ctx)


def _not_arrived(order: ReportStored, batch: Batch, reason: str) -> Fact:
    """Who brought it has it, or had it a moment ago."""
    return TransferFailed(batch=order.batch, grant=batch.grant, reason=reason, missing=False)


def _judged(order: ReportStored, batch: Batch, ctx: Context) -> list[Fact]:
    """What the store holds, if anything; it keeps what is quarantined."""
    if not ctx.gathered:
        return [_not_arrived(order, batch, "the store does not hold it")]
    sha256, size = ctx.gathered
    arrived = BatchStored(batch=order.batch, url=order.url, sha256=sha256, bytes=size)
    check = batch.check or Check(ok=False, reason="no check")
    changed = f"SHA-256 is {sha256[:12]}, {batch.sha256[:12]} was recorded" if sha256 != batch.sha256 else ""
    flaw = changed or semantic_flaw(check)
    if flaw:
        return [arrived, BatchQuarantined(batch=order.batch, lane=batch.lane, games=batch.games, reason=flaw)]
    admitted = BatchAdmitted(
        batch=order.batch, lane=batch.lane, games=batch.games, positions=batch.positions, model=batch.model,
        sha256=sha256, url=order.url, check=check,
    )  # fmt: skip
    return [arrived, admitted]


def semantic_flaw(check: Check) -> str:
    """Why the content can't be trained on; '' when it can."""
    if not check.ok:
        return check.reason or "the lane's verification refused it"
    if check.policy_coverage is not None and check.policy_coverage < LEAST_COVERAGE:
        return f"policy targets for {check.policy_coverage:.1%} of positions, {LEAST_COVERAGE:.0%} is the least"
    if check.mean_plies is not None and check.mean_plies < 1:
        return f"games of {check.mean_plies:.1f} plies"
    return ""


def failed(order: ReportTransferFailed, batch: Batch, ctx: Context) -> list[Fact]:  # noqa: ARG001
    """A failed transfer goes back to the queue; it does not look fresh."""
    if batch.state != "granted" or order.grant != batch.grant:
        return []
    return [TransferFailed(batch=order.batch, grant=order.grant, reason=order.reason, missing=order.missing)]


def hasten(order: SyncNow, batch: Batch, ctx: Context) -> list[Fact]:
    from datetime import timedelta

    if batch.state not in ("recorded", "granted"):
        return []
    return [SyncHastened(batch=order.batch, until=ctx.now + timedelta(seconds=order.for_s))]
