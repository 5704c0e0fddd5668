"""The archivist: carries open entities forward, writes older facts as Parquet, then purges the stream up to there.

A long span goes segment by segment, each of them whole: what is held in memory does not grow with the log. Each step is
done again without harm: a run that was killed anywhere is finished by the next one.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from pathlib import Path

import nats.errors
from nats.aio.client import Client
from nats.js.errors import Error as JetStreamError

from sparring.artifacts import ArtifactStore, sha256_of
from sparring.catalogue import deciders
from sparring.contracts.archivist import LogArchived, Segment
from sparring.contracts.readings import ServiceBeat
from sparring.decider import Decider, Recorded
from sparring.entity_store import ORDERS_KEPT, Because, EntityStore
from sparring.envelope import derived_id
from sparring.errors import BadInput
from sparring.faults import fault
from sparring.log.archived import ARCHIVE, archived
from sparring.log.interface import Raw, until
from sparring.log.jetstream import JetStreamLog
from sparring.log.slice import Slice, SliceWriter
from sparring.readings import stored
from sparring.streams import EVENTS
from sparring.subjects import Ref, untoken

CARRIED_AT_ONCE = 64
# messages a segment: with a kilobyte each about 250 MB in memory
SEGMENT = 200_000


def _last(_: LogArchived | None, recorded: Recorded) -> LogArchived | None:
    return recorded.fact if isinstance(recorded.fact, LogArchived) else None


LOG: Decider[LogArchived | None] = Decider("archivist", "log", None, _last, LogArchived | None)


@dataclass(frozen=True)
class Archived:
    """What a run did; `facts` is 0 when there was nothing to archive."""

    through: int
    facts: int
    carried: int
    dropped: int
    bytes: int


async def archive(
    nc: Client, before: int, artifacts: ArtifactStore, identity: str, now: datetime, say: Callable[[str], None]
) -> Archived:
    """Moves everything up to the sequence `before` out of the stream.

    Raises BadInput when somebody has not read that far, or when this user may not purge.
    """
    stream = JetStreamLog(nc)
    known = await archived(stream)
    done = known.through if known is not None else 0
    if before <= done:
        await _purge(nc, stream, done)
        return Archived(done, 0, 0, 0, 0)
    await _everyone_has_read(nc, before)
    found = Archived(done, 0, 0, 0, 0)
    while found.through < before:
        one = await _segment(nc, stream, min(before, found.through + SEGMENT), artifacts, identity, now, say)
        found = Archived(one.through, *(a + b for a, b in zip(astuple(found)[1:], astuple(one)[1:], strict=True)))
    return found


async def _segment(
    nc: Client, stream: JetStreamLog, before: int, artifacts: ArtifactStore, identity: str, now: datetime,
    say: Callable[[str], None],
) -> Archived:  # fmt: skip
    """The next segment, up to the sequence `before`. Raises BadInput."""
    known = await archived(stream)
    done = known.through if known is not None else 0
    raws = [raw async for batch in until(stream, before, done) for raw in batch]
    carried, dropped = await _carry(stream, raws, before, now, say)
    with tempfile.TemporaryDirectory(prefix="spar-archive-") as folder:
        file = Path(folder) / "segment.parquet"
        await asyncio.to_thread(SliceWriter(file).write, Slice(identity, done + 1, before), raws)
        sha256, size = await asyncio.to_thread(sha256_of, file)
        url = await artifacts.put(file, sha256)
    if await artifacts.digest(url) != (sha256, size):
        raise BadInput(
            f"{url} does not hold what was written: nothing was purged; look at the store, delete it there, run again"
        )
    fault("stored")
    say(f"{len(raws)} facts lie in {url} ({size / 1e6:.1f} MB)")
    segment = Segment(first=done + 1, last=before, sha256=sha256, bytes=size, facts=len(raws), url=url)
    earlier = known.segments if known is not None else ()
    fact = LogArchived(through=before, segments=(*earlier, segment), carried=carried)
    because = Because(source="archivist", now=now, id=derived_id("archive", identity, str(before)))
    # somebody else who archived meanwhile has moved the entity: then nothing is said, and nothing is purged
    outcome = await EntityStore(stream).execute(
        [(LOG, "main")], lambda states: [fact] if states[ARCHIVE] == known else [], because
    )
    if not outcome.facts:
        raise BadInput("another archivist was faster; look at `spar log status` and run it again")
    fault("recorded")
    await _purge(nc, stream, before)
    return Archived(before, len(raws), carried, dropped, size)


async def _everyone_has_read(nc: Client, before: int) -> None:
    """Every durable, and every replica that beat in the last 15 minutes: so long TELEMETRY keeps a beat. Raises BadInput."""
    js = nc.jetstream(timeout=5)
    behind = []
    for info in await js.consumers_info(EVENTS):
        floor = info.ack_floor.stream_seq if info.ack_floor is not None else 0
        handled = floor if info.num_pending or info.num_ack_pending else before
        if info.config.durable_name and handled < before:
            behind.append(f"consumer {info.name} has handled {floor}")
    # by the server's clock alone: whoever is silent for now, or cut off, has not read on
    beats = [beat for _, beat, _ in await stored(nc, "tel.*.heartbeat") if isinstance(beat, ServiceBeat)]
    if not beats:
        raise BadInput(
            "no service has said in the last 15 minutes how far it has read; start the services, then run again"
        )
    behind += [f"{one.service}/{one.replica} has read {one.position}" for one in beats if one.position < before]
    if behind:
        raise BadInput(
            f"--before {before}: not everyone has read that far: {'; '.join(behind)}; archive less, or wait: a replica that "
            "is gone is forgotten 15 minutes after its last beat"
        )


async def _carry(
    stream: JetStreamLog, raws: Sequence[Raw], before: int, now: datetime, say: Callable[[str], None]
) -> tuple[int, int]:
    """Every entity whose facts are about to leave stays in the stream as one message, unless it is over for good."""
    newest = {entity: raw.at for raw in raws if (entity := _entity(raw)) is not None}
    store, room = EntityStore(stream), asyncio.Semaphore(CARRIED_AT_ONCE)
    because = Because(source="archivist", now=now, id="archive")
    known = deciders()

    async def one(ref: Ref, last_at: datetime) -> bool:
        async with room:
            decider = LOG if ref == ARCHIVE else known.get((ref.owner, ref.entity))
            if decider is None:
                raise BadInput(
                    f"{ref}: no installed service knows how to carry this entity forward; install {ref.owner}"
                )
            loaded = await store.state(decider, ref.id)
            # facts that stay in the stream need a state to be folded on
            if loaded.sequence > before and loaded.since_carried == 0:
                # carried for an earlier segment, nothing happened since
                return True
            leaves = loaded.sequence <= before and now - last_at > ORDERS_KEPT
            if leaves and decider.closed(loaded.state):
                return False
            await store.carry_forward(decider, ref.id, because)
            return True

    kept = await asyncio.gather(*(one(ref, at) for ref, at in newest.items() if ref != ARCHIVE))
    fault("carried")
    say(f"{sum(kept)} entities carried forward, {len(kept) - sum(kept)} are over for good")
    return sum(kept), len(kept) - sum(kept)


def _entity(raw: Raw) -> Ref | None:
    """The entity of a fact; users' own facts are carried by nobody: their owners keep no state here."""
    _, owner, entity, id, _ = raw.subject.split(".", 4)
    return None if owner.startswith("ext-") else Ref(owner, entity, untoken(id))


async def _purge(nc: Client, stream: JetStreamLog, through: int) -> None:
    if await stream.begin() >= through:
        return
    before = nc.last_error
    asked = asyncio.create_task(nc.jetstream(timeout=60).purge_stream(EVENTS, seq=through + 1))
    try:
        # a server does not answer what it forbids: it only tells the connection
        while not (await asyncio.wait({asked}, timeout=0.1))[0]:
            if nc.last_error is not before and "permissions violation" in str(nc.last_error).lower():
                raise _not_purged(through, nc.last_error)
        await asked
    except (nats.errors.Error, JetStreamError, TimeoutError) as error:
        raise _not_purged(through, error) from error
    finally:
        asked.cancel()


def _not_purged(through: int, error: Exception | None) -> BadInput:
    return BadInput(
        f"the facts up to {through} are archived, and the stream was not purged: {error!r}; "
        "purging is the archivist's permission alone: give --creds of that user and run it again"
    )
