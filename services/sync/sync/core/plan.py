"""Brings what is in danger first to the store, releases what is safe, declares lost only what is proven lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import chain, islice
from typing import Any

from sparring.backoff import doubled_s
from sparring.contracts.base import Fact
from sparring.contracts.node_agent import ReleaseCustody, UploadBatch
from sparring.contracts.sync import (
    BatchLost,
    BatchRetired,
    ShardsRetired,
    TransferAdmitted,
    TransferFailed,
    TransferGranted,
)
from sparring.decider import Action, Append, Context, Send
from sparring.subjects import Ref
from sync.core.batch import BATCH, Batch
from sync.core.dataset import DATASET
from sync.core.picture import DOOMED_KEPT, CustodyPicture, Node
from sync.core.quota import MAIN, QUOTA, Quota

MOST_RETIRED_A_CALL = 16
# half of what a picture remembers: nothing is forgotten before its bytes are deleted, however long the store is away
MOST_UNDELETED = DOOMED_KEPT // 2
TOLD_AGAIN = (timedelta(), timedelta(seconds=10), timedelta(seconds=60))
# longer than a release is told, no longer: each is remembered for that time
RELEASE_AGAIN_S = 300.0


def plan(ctx: Context) -> Sequence[Action]:
    picture: CustodyPicture = ctx.picture
    return [
        *_running(ctx, picture),
        *_lost(ctx, picture),
        *_grants(ctx, picture),
        *_releases(ctx, picture),
        *_retired(ctx, picture),
        *_spent(picture),
    ]


def urgency(batch: Batch, node: Node, now: datetime, critical_s: float) -> float:
    """(unsynced games + .01·age) × 3 ephemeral × 1.5 persistent of critical age × .8^failures; hastened ones first."""
    age_s = (now - batch.recorded_at).total_seconds() if batch.recorded_at else 0.0
    value = batch.games + 0.01 * age_s
    if batch.ephemeral or node.ephemeral or node.draining:
        value *= 3.0
    elif age_s > critical_s:
        value *= 1.5
    value *= 0.8 ** min(batch.failures, 20)
    return value + 1e9 if batch.hastened_until is not None and batch.hastened_until > now else value


def node_of(picture: CustodyPicture, name: str) -> Node:
    return picture.all.nodes.get(name, Node())


def _retry_at(batch: Batch) -> timedelta:
    """A failed transfer is tried again after 1, 2, 4 … 60 s; … 600 s where the node says that it has no such batch."""
    most_s = 60.0 if batch.missing_since is None else 600.0
    return timedelta(seconds=doubled_s(1.0, batch.failures - 1, most_s)) if batch.failures else timedelta()


def _grants(ctx: Context, picture: CustodyPicture) -> Iterable[Action]:
    """The most urgent ones first, as many as the cluster's and each node's limits leave room for."""
    busy = Counter(batch.node for batch in picture.all.open.values() if batch.state == "granted")
    left = ctx.settings.cluster_transfers - busy.total()
    if left <= 0:
        return
    ended = frozenset(one for one in picture.all.quota.running
                      if one not in picture.all.open or picture.all.open[one].state != "granted")  # fmt: skip
    for value, name, batch in sorted(_waiting(ctx, picture), key=lambda one: (-one[0], one[1])):
        if left == 0:
            return
        if busy[batch.node] >= node_of(picture, batch.node).transfers(ctx.settings.node_transfers, ctx.now):
            continue
        busy[batch.node] += 1
        left -= 1
        yield _grant(ctx, name, batch, value, ended)


def _waiting(ctx: Context, picture: CustodyPicture) -> Iterator[tuple[float, str, Batch]]:
    """Batches that wait on nodes that are there, whose pause after a failure is over, with their urgency."""
    lease = timedelta(seconds=ctx.settings.lease_s)
    for name, batch in chain(picture.all.open.items(), picture.all.lost.items()):
        resting = batch.until is not None and ctx.now < batch.until - lease + _retry_at(batch)
        if not _waits(batch) or resting or picture.all.held_back(batch):
            continue
        node = node_of(picture, batch.node)
        if node.lost_at is None:
            yield urgency(batch, node, ctx.now, ctx.settings.critical_s), name, batch


def _waits(batch: Batch) -> bool:
    """Whether its node may bring it. One that counted as lost with its node is asked for once that is back; one that the
    node itself said it has no more is not."""
    return batch.state == "recorded" or (batch.state == "lost" and batch.missing_since is None)


def _grant(ctx: Context, name: str, batch: Batch, value: float, ended: frozenset[str]) -> Append:
    own, guard = BATCH.ref(name), QUOTA.ref(MAIN)

    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        now: Batch = states[own]
        quota: Quota = states[guard]
        freed = tuple(one for one in quota.running if one in ended)
        running = len(quota.running) - len(freed)
        on_node = sum(node == batch.node and one not in ended for one, node in quota.running.items())
        full = running >= ctx.settings.cluster_transfers
        if not _waits(now) or full or on_node >= ctx.settings.node_transfers:
            return []
        return [
            TransferGranted(
                batch=name, node=batch.node, grant=now.grant + 1, urgency=round(value, 2),
                until=ctx.now + timedelta(seconds=ctx.settings.lease_s),
            ),
            TransferAdmitted(
                batch=name, node=batch.node, freed=freed, running=running + 1, limit=ctx.settings.cluster_transfers,
            ),
        ]  # fmt: skip

    return Append([(BATCH, name), (QUOTA, MAIN)], decide, correlation=batch.iteration)


def _running(ctx: Context, picture: CustodyPicture) -> Iterable[Action]:
    """Orders for what is granted; a grant whose lease ended goes back to the queue."""
    for name, batch in picture.all.open.items():
        if batch.state != "granted" or batch.until is None:
            continue
        if ctx.now < batch.until:
            lease_s = (batch.until - ctx.now).total_seconds()
            order = UploadBatch(node=batch.node, batch=name, sha256=batch.sha256, grant=batch.grant, lease_s=lease_s,
                                bytes_per_s=ctx.settings.link_bits_per_s // 8)  # fmt: skip
            yield Send(order, key=f"upload-{name}-{batch.grant}", correlation=batch.iteration, expires_s=lease_s,
                       again_s=ctx.settings.lease_s)  # fmt: skip
            continue
        expired = TransferFailed(batch=name, grant=batch.grant, reason="the grant's lease ended")
        yield _alone(name, expired, "granted", batch.grant, batch.iteration)


def _alone(name: str, fact: Fact, state: str, grant: int | None = None, iteration: str = "") -> Append:
    ref = BATCH.ref(name)

    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        now: Batch = states[ref]
        return [fact] if now.state == state and grant in (None, now.grant) else []

    return Append([(BATCH, name)], decide, correlation=iteration)


def _releases(ctx: Context, picture: CustodyPicture) -> Iterable[Action]:
    """Each order is given three times by this process: at once, after 10 s and after 60 s; the first one that is
    published is the only one that travels."""
    for name, (at, times) in list(picture.telling.items()):
        batch = picture.all.releasing[name]
        if not batch.node:
            # lost so long ago that nobody knows any more where it lay
            del picture.telling[name]
            continue
        if at is not None and at != ctx.now:
            if times == len(TOLD_AGAIN):
                del picture.telling[name]
                continue
            # a clock that was set back waits for nothing
            if at < ctx.now < at + TOLD_AGAIN[times]:
                continue
        if at != ctx.now:
            picture.telling[name] = (ctx.now, times + 1)
        order = ReleaseCustody(node=batch.node, batch=name, sha256=batch.sha256)
        yield Send(order, key=f"release-{name}", correlation=batch.iteration, again_s=RELEASE_AGAIN_S)


def _lost(ctx: Context, picture: CustodyPicture) -> Iterable[Action]:
    """Only with proof: the node is gone for longer than nodes come back, or is there and says for as long that it has no
    such batch; and the store never had it."""
    for name, batch in picture.all.open.items():
        node = node_of(picture, batch.node)
        since = node.lost_at or batch.missing_since
        if since is None:
            continue
        patience = ctx.settings.ephemeral_gone_s if batch.ephemeral or node.ephemeral else ctx.settings.gone_s
        if ctx.now < since + timedelta(seconds=patience):
            continue
        says = "is gone" if node.lost_at else "has no such batch"
        proof = f"node {batch.node} {says} since {since.isoformat()}, the store never had it"
        fact = BatchLost(batch=name, lane=batch.lane, games=batch.games, proof=proof)
        yield _alone(name, fact, batch.state, batch.grant, batch.iteration)


def _retired(ctx: Context, picture: CustodyPicture) -> Iterable[Action]:
    """Deletes only what none of the newest data sets reaches, by a fact that lists the replicas; no more at a time than
    is deleted meanwhile."""
    room = MOST_UNDELETED - len(picture.undeleted)
    for lane, shelf in picture.all.shelves.items():
        least = shelf.sealed - ctx.settings.keep_datasets
        for one in islice(shelf.batches.values(), MOST_RETIRED_A_CALL):
            used, at = shelf.used.get(one.batch), shelf.admitted_at.get(one.batch)
            if used is None or used > least or at is None or ctx.now < at + timedelta(seconds=ctx.settings.keep_s):
                continue
            if room <= 0:
                return
            room -= 1
            reason = f"last in data set {used} of {shelf.sealed}; the newest {ctx.settings.keep_datasets} are kept"
            fact = BatchRetired(batch=one.batch, lane=lane, games=one.games, replicas=(one.url,), reason=reason)
            yield _alone(one.batch, fact, "admitted")


def _spent(picture: CustodyPicture) -> Iterable[Action]:
    """Shards of closed iterations: the data set's batches can make them again. A lane's newest ones stay until the next
    export: tasks of users' own kinds learn from them."""
    newest = {shards.lane: name for name, shards in picture.all.shards.items()}
    for name, shards in list(picture.all.shards.items()):
        if not shards.spent or newest[shards.lane] == name:
            continue
        fact = ShardsRetired(iteration=name, lane=shards.lane, replicas=shards.urls, bytes=shards.bytes)
        yield Append([(DATASET, name)], partial(_once, DATASET.ref(name), fact), correlation=name)


def _once(ref: Ref, fact: ShardsRetired, states: Mapping[Ref, Any]) -> Sequence[Fact]:
    return [] if states[ref].shards_retired else [fact]
