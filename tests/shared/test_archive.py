"""What is archived leaves the stream and no answer changes: not of a read, not of an entity, not after a kill."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from typer.testing import CliRunner

from selfplay_orch.core.task import TASK
from sparring import archive as segments
from sparring import clock, faults
from sparring.archive import archive
from sparring.artifacts import JetStreamStore, open_store
from sparring.catalogue import deciders, read_models
from sparring.cli.app import build
from sparring.contracts import FACTS
from sparring.contracts.archivist import Segment
from sparring.contracts.base import Fact
from sparring.contracts.health import NodeJoined, ThresholdMoved
from sparring.contracts.parts import TaskSpec
from sparring.contracts.readings import ServiceBeat
from sparring.contracts.selfplay_orch import TaskAssigned, TaskFinished, TaskRequested, TaskStarted
from sparring.contracts.training_slots import SlotClaimed, SlotReleased
from sparring.decider import Decider
from sparring.entity_store import ORDERS_KEPT, Because, EntityStore
from sparring.errors import BadInput, LogUnavailable
from sparring.hearing import whole
from sparring.log import JetStreamLog, Raw
from sparring.log.archived import ArchivedLog, archived
from sparring.log.jetstream import born
from sparring.patience import Patience
from sparring.projection import Projection
from sparring.server import EmbeddedServer
from sparring.streams import TELEMETRY
from sparring.subjects import CARRIED, ref_of
from sparring.testing import at, eventually
from sparring.testing.processes import call
from sparring.testing.proxy import Proxy
from sparring.topology import declare_topology
from training_slots.core.evolve import POOL

READS = ("status", "nodes", "tasks", "slots", "health", "events", "sql 'from orch_tasks'", "sql 'from slots_pool'")
# that each of them is right over an archive shows without a kill
FEW = ("status", "tasks", "events", "slots")
MOMENTS = (["--at", "12"], ["--at", "3"], ["--at", "6"])
SPEC = TaskSpec(kind="export", lane="hex", seed=1, argv=("x",), timeout_s=600.0)


async def tell(store: EntityStore, *facts: Fact, id: str, order: str = "") -> None:
    decider: Decider[Any] = deciders()[facts[0].owner, facts[0].entity]
    because = Because(source="test", now=clock.now(), id=id, order=order)
    await store.execute([(decider, facts[0].id)], lambda _: list(facts), because)


async def beat(nc: Client, position: int, replica: str = "0") -> None:
    """Says how far a replica has read."""
    one = ServiceBeat(service="pipeline", replica=replica, build="1", contracts="1", leader=False, position=position,
                      log_end=position, handled=0, failed=0, loop_lag_s=0, up_s=1)  # fmt: skip
    subject = f"tel.svc-pipeline-{replica}.heartbeat"
    await nc.jetstream(timeout=5).publish(subject, one.model_dump_json().encode(), stream=TELEMETRY)


async def story(nc: Client) -> None:
    """Twelve facts: a task that is over, one that runs, a pool whose slot went round, two nodes; and who has read them."""
    await beat(nc, 1000)
    store = EntityStore(JetStreamLog(nc))
    for number in (1, 2):
        await tell(
            store, TaskRequested(task=f"t{number}", spec=SPEC, by="pipeline"), id=f"r{number}", order=f"order-{number}"
        )
        assigned = TaskAssigned(task=f"t{number}", attempt=1, node="n1", boot="b", seat_limit=2)
        await tell(store, assigned, id=f"a{number}")
        await tell(store, TaskStarted(task=f"t{number}", attempt=1, node="n1"), id=f"s{number}")
    await tell(store, TaskFinished(task="t1", attempt=1, node="n1", kind="export", lane="hex", seconds=1, files=(),
                                   evidence={"positions": 1}), id="f1")  # fmt: skip
    claimed = SlotClaimed(lane="hex", holder="h1", until=at(90), waited_s=0, held=1, limit=3)
    await tell(store, claimed, id="c1")
    await tell(store, SlotReleased(lane="hex", token=8, held_s=1), id="c2")
    await tell(store, claimed.model_copy(update={"holder": "h2"}), id="c3")
    for node in ("n1", "n2"):
        joined = NodeJoined(node=node, boot="b", build="1", compatible=True, ephemeral=False, tags=(), kinds=(),
                            machine=node, cores=8, memory_bytes=2**35, gpus=(), seats=2)  # fmt: skip
        await tell(store, joined, id=f"j{node}")


@pytest_asyncio.fixture
async def told(nc: Client) -> AsyncIterator[Client]:
    await story(nc)
    assert await JetStreamLog(nc).end() == 12
    yield nc


async def up_to(nc: Client, before: int, *, later: timedelta = timedelta()) -> Any:
    store = await open_store("nats://ARTIFACTS", nc.jetstream())
    return await archive(nc, before, store, await born(nc), clock.now() + later, lambda _: None)


def answers(url: str, reads: Sequence[str] = READS) -> list[Any]:
    """Every read at every moment, without what depends on when it was asked and on how long the stream is."""
    found = []
    for read in reads:
        name, _, rest = read.partition(" '")
        for moment in MOMENTS:
            done = CliRunner().invoke(
                build(), [name, *([rest.rstrip("'")] if rest else []), "--json", *moment, "--nats", url]
            )
            lines = (
                [json.loads(line) for line in done.output.splitlines()] if not done.exception else [str(done.exception)]
            )
            found.append([_plain(line) for line in lines])
    return found


def _plain(value: Any) -> Any:
    gone = {"age_s", "behind_s", "as_of", "at"}
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if key not in gone}
    return [_plain(one) for one in value] if isinstance(value, list) else value


async def states(nc: Client) -> dict[str, Any]:
    """What an owner that starts anew knows of each entity, and whether it is there."""
    store = EntityStore(JetStreamLog(nc))
    found = {}
    for ref in {ref_of(one.fact) for one in await whole(ArchivedLog(nc)) if one.fact.owner != "archivist"}:
        decider = deciders()[ref.owner, ref.entity]
        found[str(ref)] = (await store.state(decider, ref.id)).state, await store.exists(decider, ref.id)
    return found


def test_every_entity_has_a_decider_that_can_carry_it() -> None:
    entities = {(cls.owner, cls.entity) for cls in FACTS.values() if cls.owner != "archivist"}
    assert entities - set(deciders()) == set()


async def test_no_answer_changes_when_facts_move_into_the_archive(server: EmbeddedServer, told: Client) -> None:
    assert server.address is not None
    url = server.address.url
    before, known = await asyncio.to_thread(answers, url), await states(told)
    done = await up_to(told, 9)
    assert (done.through, done.facts, done.dropped) == (9, 9, 0)
    assert await JetStreamLog(told).begin() == 9
    assert await asyncio.to_thread(answers, url) == before
    assert await states(told) == known
    # the pool's two later facts lie in the stream behind its carried state: nothing was counted twice
    assert known["Ref(owner='training-slots', entity='pool', id='main')"][0].held["hex"].holder == "h2"
    facts = await whole(ArchivedLog(told))
    assert [one.sequence for one in facts][:12] == list(range(1, 13))


async def test_a_long_span_goes_in_segments_and_no_answer_changes(
    server: EmbeddedServer, told: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.address is not None
    url = server.address.url
    before, known = await asyncio.to_thread(answers, url), await states(told)
    monkeypatch.setattr(segments, "SEGMENT", 4)
    done = await up_to(told, 10)
    stream = JetStreamLog(told)
    log = await archived(stream)
    assert log is not None
    assert [(one.first, one.last, one.facts) for one in log.segments] == [(1, 4, 4), (5, 8, 4), (9, 10, 2)]
    assert (done.through, done.facts, await stream.begin()) == (10, 10, 10)
    assert await asyncio.to_thread(answers, url) == before
    assert await states(told) == known
    # the pool's facts lie in two segments; it was carried once
    carried = [raw for raw in await stream.load(POOL.ref("main").pattern) if raw.subject.endswith(CARRIED)]
    assert len(carried) == 1


async def test_tables_folded_from_archive_and_stream_are_those_of_before(told: Client) -> None:
    async def rows() -> list[Any]:
        projection = Projection(":memory:", read_models())
        async for batch in ArchivedLog(told).follow(0):
            projection.apply([raw for raw in batch if raw.sequence <= 12])
            if batch and batch[-1].sequence >= 12:
                break
        return [sorted(projection.con.execute(f"from {name}").fetchall(), key=repr) for name in projection.tables()]

    before = await rows()
    await up_to(told, 7)
    assert await rows() == before
    await up_to(told, 12)
    assert await rows() == before


async def test_an_order_that_is_in_the_archive_is_still_obeyed_once(told: Client) -> None:
    await up_to(told, 12)
    again = Because(source="test", now=clock.now(), id="order-2", order="order-2")
    store = EntityStore(JetStreamLog(told))
    outcome = await store.execute([(TASK, "t2")], lambda _: [TaskRequested(task="t2", spec=SPEC, by="x")], again)
    assert outcome.repeated
    released = SlotReleased(lane="hex", token=10, held_s=1)
    await tell(store, released, id="after")
    assert (await store.state(POOL, "main")).state.held == {}


async def test_a_replica_that_knew_an_entity_before_its_facts_were_archived_decides_on_its_newest_state(
    told: Client,
) -> None:
    stale, other = EntityStore(JetStreamLog(told)), EntityStore(JetStreamLog(told))
    assert (await stale.state(POOL, "main")).state.held["hex"].holder == "h2"
    assert not await stale.exists(TASK, "t3")
    await tell(other, SlotReleased(lane="hex", token=10, held_s=1), id="released", order="released")
    await tell(other, TaskRequested(task="t3", spec=SPEC, by="pipeline"), id="r3")
    await up_to(told, 14)
    seen = list[Any]()

    def decide(states: Any) -> list[Fact]:
        seen.append(states[POOL.ref("main")].held)
        return [SlotClaimed(lane="hex", holder="h3", until=at(90), waited_s=0, held=1, limit=3)]

    await stale.execute([(POOL, "main")], decide, Because(source="test", now=clock.now(), id="c4"))
    assert seen[-1] == {}
    await tell(stale, TaskAssigned(task="t3", attempt=1, node="n1", boot="b", seat_limit=2), id="a3")
    fresh = EntityStore(JetStreamLog(told))
    for decider, id in ((POOL, "main"), (TASK, "t3")):
        mine, theirs = await stale.state(decider, id), await fresh.state(decider, id)
        assert (mine.state, mine.orders, mine.sequence) == (theirs.state, theirs.orders, theirs.sequence)
    repeated = Because(source="test", now=clock.now(), id="released", order="released")
    assert (await stale.execute([(POOL, "main")], decide, repeated)).repeated


async def test_what_is_over_for_good_leaves_once_no_redelivery_is_possible(told: Client) -> None:
    done = await up_to(told, 12, later=ORDERS_KEPT + timedelta(hours=1))
    assert done.dropped == 1, "t1 is finished; t2, the pool and the nodes are not over"
    stream, store = JetStreamLog(told), EntityStore(JetStreamLog(told))
    assert await stream.last(TASK.ref("t1").pattern) == 0
    assert (await store.state(TASK, "t2")).state.state == "started"
    assert [one.fact.task for one in await whole(ArchivedLog(told)) if isinstance(one.fact, TaskFinished)] == ["t1"]


async def test_what_is_over_is_carried_while_it_has_facts_in_the_stream(told: Client) -> None:
    """Dropped, its later facts would be folded from nothing."""
    late = TaskFinished(task="t1", attempt=1, node="n1", kind="export", lane="hex", seconds=1, files=(),
                        evidence={"positions": 1}, superseded=True)  # fmt: skip
    await tell(EntityStore(JetStreamLog(told)), late, id="late")
    known = await states(told)
    done = await up_to(told, 12, later=ORDERS_KEPT + timedelta(hours=1))
    assert done.dropped == 0
    assert await states(told) == known


async def test_nothing_is_purged_on_the_word_of_a_damaged_segment(told: Client) -> None:
    class Rotten(JetStreamStore):
        async def digest(self, url: str) -> tuple[str, int]:
            _, size = await super().digest(url)
            return "0" * 64, size

    with pytest.raises(BadInput, match="does not hold what was written"):
        await archive(told, 9, Rotten(told.jetstream()), "log", clock.now(), lambda _: None)
    assert await JetStreamLog(told).begin() == 0
    assert await archived(JetStreamLog(told)) is None


async def test_a_segment_that_the_store_lost_is_named_and_reading_goes_on_once_it_is_restored(
    told: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica stood still for good, with words about an upgrade."""
    await up_to(told, 8)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    store, (segment,) = await open_store("nats://ARTIFACTS", told.jetstream()), await segments_of(told)
    await store.get(segment.url, tmp_path / "backup")
    await store.delete(segment.url)
    with pytest.raises(LogUnavailable, match=r"facts 1 to 8 .*is not in the store; restore the artifact store"):
        await whole(ArchivedLog(told))
    await store.put(tmp_path / "backup", segment.sha256)
    assert [one.sequence for one in await whole(ArchivedLog(told))][:8] == list(range(1, 9))


async def segments_of(nc: Client) -> Sequence[Segment]:
    found = await archived(JetStreamLog(nc))
    assert found is not None
    return found.segments


async def test_nobody_skips_what_was_purged_by_hand(told: Client) -> None:
    await told.jetstream().purge_stream("EVENTS", seq=5)
    with pytest.raises(LogUnavailable, match="neither in the stream nor in the archive"):
        await whole(ArchivedLog(told))


async def test_a_fact_that_is_lost_without_a_purge_is_not_stepped_over(
    told: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_feed = JetStreamLog.follow

    async def lossy(self: JetStreamLog, after: int, filters: Sequence[str] = ()) -> AsyncIterator[list[Raw]]:
        async for batch in whole_feed(self, after, filters):
            yield [raw for raw in batch if raw.sequence != 7]

    monkeypatch.setattr(JetStreamLog, "follow", lossy)
    with pytest.raises(LogUnavailable, match="nobody purged"):
        await whole(ArchivedLog(told))


@pytest.mark.timeout(90)
@pytest.mark.parametrize("filters", [(), ("evt.training-slots.>",)])
async def test_a_follower_under_which_facts_are_purged_reads_them_from_the_archive(
    server: EmbeddedServer, told: Client, filters: tuple[str, ...]
) -> None:
    """It was cut off while they were told, archived and purged."""
    assert server.address is not None
    found: list[Raw] = []

    async def quiet(_: Exception) -> None: ...

    async def follow(log: ArchivedLog) -> None:
        async for batch in log.follow(0, filters):
            found.extend(batch)

    with Proxy(server.address.url) as proxy:
        cut = await nats.connect(proxy.url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=quiet)
        following = asyncio.create_task(follow(ArchivedLog(cut)))
        await eventually(lambda: len(found) == (3 if filters else 12))
        proxy.cut()
        store = EntityStore(JetStreamLog(told))
        await tell(store, SlotReleased(lane="hex", token=10, held_s=1), id="c4")
        await tell(store, TaskRequested(task="t3", spec=SPEC, by="pipeline"), id="r3")
        await up_to(told, 14)
        await tell(store, TaskRequested(task="t4", spec=SPEC, by="pipeline"), id="r4")
        claimed = SlotClaimed(lane="hex", holder="h3", until=at(90), waited_s=0, held=1, limit=3)
        await tell(store, claimed, id="c5")
        end = await JetStreamLog(told).end()
        proxy.heal()
        await eventually(lambda: found[-1].sequence == end, within_s=40)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await cut.close()
    sequences = [raw.sequence for raw in found]
    if not filters:
        assert sequences == list(range(1, end + 1))
    else:
        wanted = [raw.sequence for raw in await ArchivedLog(told).load("evt.training-slots.>")]
        assert sequences == wanted and 13 in wanted


async def test_facts_that_are_archived_between_a_reads_two_questions_are_in_its_answer(
    told: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knew of no segment, and found nothing in the stream any more."""
    slots = await ArchivedLog(told).load("evt.training-slots.>")
    joined = (await ArchivedLog(told).load("evt.health.>"))[0]
    for name, through, wanted in (("load", 10, [raw.sequence for raw in slots]), ("first_since", 12, joined.sequence)):
        log = ArchivedLog(told)
        asked = getattr(log.stream, name)

        async def late(what: Any, *more: Any, asked: Any = asked, through: int = through) -> Any:
            # the log's own list of segments is read by a load too
            if not str(what).startswith("evt.archivist"):
                monkeypatch.undo()
                await up_to(told, through)
            return await asked(what, *more)

        monkeypatch.setattr(log.stream, name, late)
        if name == "load":
            # what the archive carried forward follows
            found: Any = [raw.sequence for raw in await log.load("evt.training-slots.>") if raw.sequence <= 12]
        else:
            found = await log.first_since(joined.at)
        assert found == wanted and found


async def test_nothing_is_archived_that_a_replica_may_still_have_to_read(nc: Client) -> None:
    with pytest.raises(BadInput, match="start the services, then run again"):
        await up_to(nc, 9)
    await story(nc)
    await beat(nc, 8, "1")
    with pytest.raises(BadInput, match="pipeline/1 has read 8; archive less, or wait"):
        await up_to(nc, 9)
    assert await JetStreamLog(nc).begin() == 0
    assert (await up_to(nc, 8)).facts == 8


async def test_a_beat_counts_as_long_as_the_server_keeps_it(told: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's clock may be minutes off, and a replica may be silent because it is cut off."""
    await beat(told, 8, "1")

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(minutes=5)

    monkeypatch.setattr(segments, "datetime", Later)
    with pytest.raises(BadInput, match="pipeline/1 has read 8"):
        await up_to(told, 9)


# ---- killed on the way


async def killed(url: str, point: str, segment: str) -> None:
    """An archivist that dies at the point, in its first segment of at most so many facts."""
    nc = await nats.connect(url)
    segments.SEGMENT = int(segment)
    faults.arm(point)
    await up_to(nc, 9)


@pytest.mark.parametrize(("point", "segment"), [("carried", 100), ("stored", 100), ("recorded", 100), ("recorded", 4)])
async def test_killed_in_the_middle_it_is_finished_by_the_next_run(
    server: EmbeddedServer, told: Client, tmp_path: Path, point: str, segment: int
) -> None:
    assert server.address is not None
    url = server.address.url
    before, known = await asyncio.to_thread(answers, url, FEW), await states(told)
    process = call(Path(__file__), "killed", url, point, str(segment), log=tmp_path / "archivist.log")
    await eventually(lambda: not process.is_alive(), within_s=40)
    assert process.exitcode == -9, (tmp_path / "archivist.log").read_text()
    assert await JetStreamLog(told).begin() == 0, "nothing is purged before it is recorded"
    assert await asyncio.to_thread(answers, url, FEW) == before
    assert await states(told) == known
    await up_to(told, 9)
    assert await JetStreamLog(told).begin() == 9
    assert await asyncio.to_thread(answers, url, FEW) == before
    assert await states(told) == known


# ---- who may purge

USERS = (Path(__file__).parents[2] / "infra" / "nats" / "users.conf").read_text()


async def test_only_the_archivist_may_purge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARRING_SERVICE_PASSWORD", "s")
    monkeypatch.setenv("SPARRING_ARCHIVIST_PASSWORD", "a")
    server = EmbeddedServer(tmp_path, more=USERS)
    url = server.start().url
    try:
        refusals: list[str] = []

        async def heard(error: Exception) -> None:
            refusals.append(str(error))

        service = await nats.connect(url, user="service", password="s", error_cb=heard)
        await declare_topology(service)
        await story(service)
        with pytest.raises(BadInput, match="purging is the archivist's permission alone"):
            await asyncio.wait_for(up_to(service, 9), 30)
        assert any("permissions violation" in text for text in refusals)
        assert await JetStreamLog(service).begin() == 0
        archivist = await nats.connect(url, user="archivist", password="a")
        await up_to(archivist, 9)
        assert await JetStreamLog(service).begin() == 9
        await service.close()
        await archivist.close()
    finally:
        server.kill()


async def test_a_service_remembers_a_limit_whose_move_is_archived(told: Client, tmp_path: Path) -> None:
    move = ThresholdMoved(threshold="handler-sync", value=44.0, before=40.0, least=30.0, most=120.0, terms=())
    await tell(EntityStore(JetStreamLog(told)), move, id="m1")
    await up_to(told, 13)
    assert await JetStreamLog(told).load("evt.health.threshold.handler-sync.ThresholdMoved") == []
    patience, other = Patience("sync", 30.0), Patience("pipeline", 30.0)
    await patience.remember(told)
    await other.remember(told)
    assert (patience.seconds, other.seconds) == (44.0, 30.0)
