"""Custody: nothing is admitted unchecked, nothing is lost without proof, sums always balance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given as any_given
from hypothesis import settings as examples
from hypothesis import strategies as st

from sparring.contracts.base import Fact
from sparring.contracts.health import NodeDraining, NodeJoined, NodeLost
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.node_agent import ReleaseCustody, UploadBatch
from sparring.contracts.parts import Artifact, Check
from sparring.contracts.pipeline import ExportFinished, IterationClosed, LaneEdited, LaneRegistered, QualityRefused
from sparring.contracts.sync import (
    BatchAdmitted,
    BatchLost,
    BatchQuarantined,
    BatchRetired,
    BatchStored,
    DatasetRefused,
    DatasetSealed,
    GamesRecorded,
    GamesRefused,
    RecordGames,
    ReportStored,
    ReportTransferFailed,
    SealDataset,
    ShardsRetired,
    SyncHastened,
    TransferFailed,
    TransferGranted,
)
from sparring.decider import Context, Recorded, Send
from sparring.envelope import Envelope, encode
from sparring.invariants import GamesAreConserved, LimitsAreKept, violations
from sparring.log import Raw
from sparring.projection import Projection
from sparring.testing import at, given
from sparring.testing.scenario import fold
from sparring.testing.world import World
from sync.core import picture as pictures
from sync.core.batch import BATCH, failed, record, stored
from sync.core.dataset import DATASET, seal
from sync.core.picture import CustodyPicture, Node
from sync.core.plan import MOST_UNDELETED, plan, urgency
from sync.core.questions import recommendations
from sync.read_models.custody import CUSTODY
from sync.settings import Settings

SHA, OTHER = "a" * 64, "b" * 64
GOOD = Check(ok=True, games=10, positions=100, policy_coverage=1.0, mean_plies=10)


def order(task: str = "t", **more: Any) -> RecordGames:
    values: dict[str, Any] = {"batch": f"{task}-1", "lane": "hex", "task": task, "attempt": 1, "node": "n1", "model": "",
                              "sha256": SHA, "bytes": 10, "games": 10, "positions": 100, "check": GOOD}  # fmt: skip
    return RecordGames(**(values | more))


def recorded(task: str = "t", **more: Any) -> GamesRecorded:
    return GamesRecorded.model_validate(order(task, **more).model_dump(exclude={"url"}))


def granted(task: str = "t") -> TransferGranted:
    return TransferGranted(batch=f"{task}-1", node="n1", grant=1, until=at(120), urgency=1)


def report(task: str = "t", sha256: str = SHA) -> ReportStored:
    return ReportStored(batch=f"{task}-1", node="n1", url=f"nats://ARTIFACTS/{sha256}", sha256=sha256, bytes=10)


def joined(node: str = "n1", *, ephemeral: bool = False) -> NodeJoined:
    return NodeJoined(node=node, boot="b", build="1", compatible=True, ephemeral=ephemeral, tags=(), kinds=(), machine=node,
                      cores=8, memory_bytes=2**35, gpus=(), seats=1)  # fmt: skip


def test_a_batch_is_recorded_once() -> None:
    given(BATCH).when(record, order()).then_types(GamesRecorded).asked_again_changes_nothing(record, order())


def test_games_that_the_recorder_stored_itself_are_judged_in_the_same_decision() -> None:
    whole = order(url="nats://ARTIFACTS/x")
    given(BATCH).when(record, whole, gathered=(SHA, 10)).then_types(GamesRecorded, BatchStored, BatchAdmitted)
    given(BATCH).when(record, whole, gathered=(OTHER, 10)).then_types(GamesRecorded, BatchStored, BatchQuarantined)
    given(BATCH).when(record, whole, gathered=None).then_types(GamesRecorded, TransferFailed)


def test_a_record_without_games_is_refused() -> None:
    given(BATCH).when(record, order(games=0)).then_types(GamesRefused)


def test_identity_is_the_cause_and_never_the_content() -> None:
    given(BATCH).when(record, order(batch="copied-1")).then_types(GamesRefused)
    world = World(CustodyPicture, plan, Settings(), joined(), recorded("t1"), recorded("t2"), recorded("t3"))
    world.tick()
    assert {fact.batch for fact in world.of(TransferGranted)} == {"t1-1", "t2-1", "t3-1"}


def test_what_arrived_whole_and_sound_is_admitted() -> None:
    given(BATCH, recorded(), granted()).when(stored, report(), gathered=(SHA, 10)).then_types(
        BatchStored, BatchAdmitted
    )


def test_what_does_not_arrive_as_it_was_sent_is_a_failed_transfer_and_is_brought_again() -> None:
    """It was quarantined for good, though its node had it whole."""
    world = World(CustodyPicture, plan, Settings(), joined(), recorded())
    world.tick()
    world.add(*stored(report(), folded(world, "t-1"), replace(world.context(), gathered=(OTHER, 10))))
    assert [fact.missing for fact in world.of(TransferFailed)] == [False]
    assert world.orders(ReleaseCustody) == []
    world.tick(60)
    assert len(world.of(TransferGranted)) == 2
    world.add(*stored(report(), folded(world, "t-1"), replace(world.context(), gathered=(SHA, 10))))
    assert [fact.batch for fact in world.of(BatchAdmitted)] == ["t-1"]
    assert violations(world.facts, GamesAreConserved) == []


def test_what_changed_on_its_node_is_quarantined_and_lies_in_the_store_as_it_is() -> None:
    story = given(BATCH, recorded(), granted()).when(stored, report(sha256=OTHER), gathered=(OTHER, 10))
    story.then_types(BatchStored, BatchQuarantined)


def test_a_flaw_that_verification_found_is_quarantined_and_never_deleted() -> None:
    bad = Check(ok=False, reason="NaN in policy")
    given(BATCH, recorded(check=bad), granted()).when(stored, report(), gathered=(SHA, 10)).then_types(
        BatchStored, BatchQuarantined
    )


def test_missing_policy_targets_are_quarantined() -> None:
    thin = Check(ok=True, policy_coverage=0.5)
    given(BATCH, recorded(check=thin), granted()).when(stored, report(), gathered=(SHA, 10)).then_types(
        BatchStored, BatchQuarantined
    )


def test_a_failed_transfer_goes_back_to_the_queue() -> None:
    failure = ReportTransferFailed(batch="t-1", grant=1, reason="x")
    story = given(BATCH, recorded(), granted()).when(failed, failure).then_types(TransferFailed)
    story.asked_again_changes_nothing(failed, failure)


def test_a_failed_transfer_does_not_look_fresh() -> None:
    batch = BATCH.initial
    for one in World(CustodyPicture, plan, Settings(), recorded()).facts:
        batch = BATCH.evolve(batch, one)
    tried = replace(batch, failures=1)
    assert urgency(tried, Node(), at(100), 3600) == 0.8 * urgency(batch, Node(), at(100), 3600)
    assert urgency(batch, Node(ephemeral=True), at(0), 3600) == 3 * urgency(batch, Node(), at(0), 3600)


def by_hand() -> LaneRegistered:
    spec = {"name": "hex", "game": "hex", "commands": {}, "auto": ("export",)}
    return LaneRegistered(lane="hex", spec=LaneSpec.model_validate(spec))


def test_a_lane_that_is_synced_by_hand_keeps_its_games_where_they_are_until_a_person_asks() -> None:
    world = World(CustodyPicture, plan, Settings(), by_hand(), joined(), recorded("t1"), recorded("t2"))
    world.tick(4_000)
    assert world.of(TransferGranted) == []
    assert {one.why for one in recommendations(world.context())} == {"its lane is brought by hand: spar sync --now"}
    world.add(SyncHastened(batch="t2-1", until=at(world.now + 600)))
    # its urgency is over by then, the person's word is not: the store may have been away
    world.tick(700)
    assert [fact.batch for fact in world.of(TransferGranted)] == ["t2-1"]
    world.add(LaneEdited(lane="hex", spec=by_hand().spec.model_copy(update={"auto": ("sync",)}), changed=("auto",)))
    world.tick()
    assert [fact.batch for fact in world.of(TransferGranted)] == ["t2-1", "t1-1"]


@pytest.mark.parametrize("leaving", [
    [joined(ephemeral=True)],
    [joined(), NodeDraining(node="n1", boot="b", reason="x", by="me", grace_s=60)],
])  # fmt: skip
def test_what_may_vanish_with_its_node_is_brought_in_any_case(leaving: list[Fact]) -> None:
    world = World(CustodyPicture, plan, Settings(), by_hand(), *leaving, recorded("t1"))
    world.tick()
    assert [fact.batch for fact in world.of(TransferGranted)] == ["t1-1"]


def test_grants_keep_the_limits_of_node_and_cluster() -> None:
    many = [recorded(f"t{n}", node=f"n{n % 4}") for n in range(40)]
    world = World(CustodyPicture, plan, Settings(), *many)
    world.tick(times=4)
    assert len(world.of(TransferGranted)) == 8
    assert violations(world.facts, LimitsAreKept) == []
    assert len(world.orders(UploadBatch)) == 8


def test_a_grant_whose_lease_ended_is_given_again() -> None:
    world = World(CustodyPicture, plan, Settings(lease_s=10), joined(), recorded())
    world.tick()
    world.tick(11)
    assert len(world.of(TransferFailed)) == 1
    world.tick(5, times=2)
    assert [fact.grant for fact in world.of(TransferGranted)] == [1, 2]


def test_the_nodes_copy_is_released_only_once_the_store_has_it() -> None:
    world = World(CustodyPicture, plan, Settings(), joined(), recorded())
    world.tick(times=2)
    assert world.orders(ReleaseCustody) == []
    admitted = BatchAdmitted(
        batch="t-1", lane="hex", games=10, positions=100, model="", sha256=SHA, url="u", check=GOOD
    )
    world.add(admitted)
    world.tick()
    assert [one.batch for one in world.orders(ReleaseCustody)] == ["t-1"]


def test_a_clock_that_is_set_back_again_and_again_stops_no_plan() -> None:
    admitted = BatchAdmitted(
        batch="t-1", lane="hex", games=10, positions=100, model="", sha256=SHA, url="u", check=GOOD
    )
    picture = CustodyPicture()
    for one in World(CustodyPicture, plan, Settings(), joined(), recorded(), admitted).facts:
        picture.apply(one)
    told = []
    for back in range(8):
        told += plan(Context(now=at(100 - back), settings=Settings(), picture=picture))
    assert {one.order.batch for one in told if isinstance(one, Send)} == {"t-1"}
    assert picture.telling == {}


def test_games_are_lost_only_with_proof() -> None:
    world = World(CustodyPicture, plan, Settings(gone_s=1000), joined(), recorded())
    world.add(NodeLost(node="n1", boot="b", reason="silent", silent_s=20, limit_s=20))
    world.tick(900, times=2)
    assert world.of(BatchLost) == []
    world.tick(101)
    assert [fact.games for fact in world.of(BatchLost)] == [10]


def test_a_node_that_comes_back_still_has_its_games() -> None:
    world = World(CustodyPicture, plan, Settings(gone_s=1000), joined(), recorded())
    world.add(NodeLost(node="n1", boot="b", reason="silent", silent_s=20, limit_s=20), joined())
    world.tick(2000, times=2)
    assert world.of(BatchLost) == []


GONE = NodeLost(node="n1", boot="b", reason="silent", silent_s=20, limit_s=20)


def lost_with_its_node(*more: Any) -> World:
    world = World(CustodyPicture, plan, Settings(gone_s=1000), joined(), *(more or (recorded(),)), GONE)
    world.tick(1001)
    assert [fact.batch for fact in world.of(BatchLost)] == ["t-1"]
    return world


def test_a_node_that_comes_back_after_all_is_asked_for_what_counted_as_lost() -> None:
    world = lost_with_its_node()
    world.tick(600, times=3)
    assert world.of(TransferGranted) == [], "nobody is there to ask"
    world.add(joined())
    begun_anew = CustodyPicture()
    begun_anew.load(world.context().picture.dump())
    assert begun_anew.all.lost == world.context().picture.all.lost
    world.tick(times=2)
    assert [one.batch for one in world.orders(UploadBatch)] == ["t-1"]
    world.add(*stored(report(), folded(world, "t-1"), replace(world.context(), gathered=(SHA, 10))))
    assert len(world.of(BatchAdmitted)) == 1
    world.tick()
    assert [(one.node, one.batch) for one in world.orders(ReleaseCustody)] == [("n1", "t-1")]
    assert violations(world.facts, GamesAreConserved, LimitsAreKept) == []
    assert balance(world) == {"produced": 10, "admitted": 10, "held": 0, "moving": 0, "quarantined": 0, "lost": 0}


def test_a_node_that_comes_back_without_what_counted_as_lost_is_asked_until_that_is_proven() -> None:
    world = lost_with_its_node()
    world.add(joined())
    answered(world, True, True)
    assert len(world.of(BatchLost)) == 2
    assert world.of(BatchLost)[-1].proof.startswith("node n1 has no such batch")
    tried = len(world.of(TransferGranted))
    world.tick(600, times=3)
    assert len(world.of(TransferGranted)) == tried
    assert violations(world.facts, GamesAreConserved) == []
    assert balance(world)["lost"] == 10


def test_what_counted_as_lost_and_is_reported_as_stored_is_judged() -> None:
    lost = BatchLost(batch="t-1", lane="hex", games=10, proof="x")
    story = given(BATCH, recorded(), granted(), lost)
    story.when(stored, report(), gathered=(SHA, 10)).then_types(BatchStored, BatchAdmitted)
    changed = given(BATCH, recorded(), lost).when(stored, report(sha256=OTHER), gathered=(OTHER, 10))
    changed.then_types(BatchStored, BatchQuarantined)
    held = given(BATCH, recorded(), lost).when(stored, report(), gathered=None).then_types(TransferFailed)
    assert fold(BATCH, recorded(), lost, *held.outcome).state == "recorded", "its node has it, the store does not"


def test_lost_batches_that_are_remembered_are_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "LOST_KEPT", 2)
    world = World(CustodyPicture, plan, Settings(gone_s=1000), joined(), *(recorded(f"t{n}") for n in range(4)), GONE)
    world.tick(1001)
    assert list(world.context().picture.all.lost) == ["t2-1", "t3-1"]
    world.add(*stored(report("t0"), folded(world, "t0-1"), replace(world.context(), gathered=(SHA, 10))))
    world.tick()
    assert world.orders(ReleaseCustody) == [], "nobody knows any more where it lies"


def test_bad_games_that_lie_in_the_store_and_refused_ones_fill_no_nodes_disk() -> None:
    bad = Check(ok=False, reason="NaN in policy")
    world = World(CustodyPicture, plan, Settings(), joined(), recorded("bad", check=bad), recorded("wrong"))
    world.add(*record(order("empty", games=0), BATCH.initial, world.context()))
    world.tick()
    world.add(*stored(report("bad"), folded(world, "bad-1"), replace(world.context(), gathered=(SHA, 10))))
    changed = report("wrong", OTHER)
    world.add(*stored(changed, folded(world, "wrong-1"), replace(world.context(), gathered=(OTHER, 10))))
    assert [fact.batch for fact in world.of(BatchQuarantined)] == ["bad-1", "wrong-1"]
    world.tick()
    told = {(one.node, one.batch, one.sha256) for one in world.orders(ReleaseCustody)}
    assert told == {("n1", "bad-1", SHA), ("n1", "wrong-1", SHA), ("n1", "empty-1", SHA)}
    of_old = World(CustodyPicture, plan, Settings(), GamesRefused(batch="old-1", lane="hex", reason="x"))
    of_old.tick()
    assert of_old.orders(ReleaseCustody) == []


def folded(world: World, batch: str) -> Any:
    return fold(BATCH, *(one.fact for one in world.facts if one.fact.entity == "batch" and one.fact.id == batch))


def balance(world: World) -> dict[str, int]:
    """The lane's row of `sync_balance`; each fact by itself, as the log may be cut anywhere."""
    projection = Projection(":memory:", [CUSTODY])
    for one in world.facts:
        projection.apply([Raw(one.sequence, one.at, *encode(one.fact, Envelope(str(one.sequence), "t", one.at)))])
    names = ("produced", "admitted", "held", "moving", "quarantined", "lost")
    row = projection.con.execute(f"select {', '.join(names)} from sync_balance").fetchall()[0]
    projection.close()
    return dict(zip(names, row, strict=True))


def answered(world: World, *answers: bool | None) -> None:
    """Each grant fails: the node says whether it misses the batch, or nothing; then the pause passes."""
    for missing in answers:
        world.tick()
        grant = world.of(TransferGranted)[-1].grant
        world.add(TransferFailed(batch="t-1", grant=grant, reason="x", missing=missing))
        world.tick(600)


def test_games_that_their_node_says_it_has_no_more_are_lost_once_that_stayed_so() -> None:
    world = World(CustodyPicture, plan, Settings(gone_s=2_000), joined(), recorded())
    answered(world, True, None, True)
    assert world.of(BatchLost) == []
    answered(world, True)
    lost = world.of(BatchLost)
    assert [fact.games for fact in lost] == [10]
    assert lost[0].proof == "node n1 has no such batch since 2030-01-01T00:00:00+00:00, the store never had it"
    assert violations(world.facts, GamesAreConserved) == []
    tried = len(world.of(TransferGranted))
    world.tick(600, times=3)
    assert len(world.of(TransferGranted)) == tried


def test_games_that_their_node_finds_again_are_not_lost() -> None:
    world = World(CustodyPicture, plan, Settings(gone_s=2_000), joined(), recorded())
    answered(world, True, True, True, False, True, True, True)
    assert world.of(BatchLost) == []
    answered(world, True)
    assert len(world.of(BatchLost)) == 1


def test_a_node_that_has_no_such_batch_is_asked_ever_more_rarely() -> None:
    world = World(CustodyPicture, plan, Settings(), joined(), recorded())
    for _ in range(3_600 // 5):
        world.tick(5)
        granted_now = [one for one in world.of(TransferGranted) if one.grant > len(world.of(TransferFailed))]
        for one in granted_now:
            world.add(TransferFailed(batch="t-1", grant=one.grant, reason="x", missing=True))
    # 1, 2, 4 … 512 s are ten, then one each 600 s
    assert len(world.of(TransferFailed)) in range(11, 16)


def shelf(*tasks: str) -> CustodyPicture:
    picture = CustodyPicture()
    facts = [
        BatchAdmitted(batch=f"{t}-1", lane="hex", games=10, positions=100, model="", sha256=SHA, url="u", check=GOOD)
        for t in tasks
    ]
    for one in World(CustodyPicture, plan, Settings(), *facts).facts:
        picture.apply(one)
    return picture


def test_a_data_set_is_the_newest_that_fits_and_everything_new() -> None:
    picture = shelf("t1", "t2", "t3", "t4")
    sealing = SealDataset(iteration="hex-2", lane="hex", window_positions=300, since_games=20)
    story = given(DATASET).when(seal, sealing, settings=Settings(), picture=picture)
    sealed = story.outcome[0]
    assert isinstance(sealed, DatasetSealed)
    assert [one.batch for one in sealed.batches] == ["t2-1", "t3-1", "t4-1"]
    assert (sealed.new_games, sealed.new_positions, sealed.positions) == (20, 200, 300)
    story.then_types(DatasetSealed).asked_again_changes_nothing(seal, sealing, picture=picture)


def test_a_data_set_without_anything_new_is_refused() -> None:
    sealing = SealDataset(iteration="hex-2", lane="hex", window_positions=300, since_games=20)
    given(DATASET).when(seal, sealing, settings=Settings(), picture=shelf("t1", "t2")).then_types(DatasetRefused)


def test_what_one_list_cannot_hold_is_left_out_and_said() -> None:
    """At a hundred nodes a week's window has more batches than a message can list: the oldest stay out, the loop goes on."""
    picture = shelf(*(f"t{number:03}" for number in range(100)))
    sealing = SealDataset(iteration="hex-2", lane="hex", window_positions=9_000, since_games=980)
    settings = Settings(manifest_bytes=6_000)
    (sealed,) = given(DATASET).when(seal, sealing, settings=settings, picture=picture).outcome
    assert isinstance(sealed, DatasetSealed)
    size = len(sealed.model_dump_json(include={"batches"}))
    assert 5_500 < size <= 6_000 + len('{"batches":[]}')
    assert sealed.left_out == 90 - len(sealed.batches) > 0
    assert sealed.batches[-1].batch == "t099-1" and sealed.positions == 100 * len(sealed.batches)
    assert (sealed.new_games, sealed.new_positions) == (20, 200)


def test_new_batches_that_a_list_cannot_hold_are_passed_over_once_and_retired_like_others() -> None:
    world, settings = (
        World(CustodyPicture, plan, Settings(keep_datasets=1, keep_s=1), joined()),
        Settings(manifest_bytes=2_500),
    )
    consumed, listed = 0, list[set[str]]()
    for number in range(4):
        for batch in range(40):
            name = f"t{number}{batch:02}"
            world.add(recorded(name), BatchAdmitted(batch=f"{name}-1", lane="hex", games=10, positions=100, model="",
                                                    sha256=SHA, url=name, check=GOOD))  # fmt: skip
        sealing = SealDataset(iteration=f"hex-{number}", lane="hex", window_positions=1, since_games=consumed)
        ctx = replace(world.context(), settings=settings)
        (sealed,) = seal(sealing, DATASET.initial, ctx)
        assert isinstance(sealed, DatasetSealed)
        world.add(sealed)
        assert (sealed.new_games, sealed.new_positions) == (400, 4_000), "nothing is new twice"
        assert 0 < len(sealed.batches) < 40 and sealed.left_out == 40 - len(sealed.batches)
        consumed += sealed.new_games
        listed.append({one.batch for one in sealed.batches})
        again = seal(sealing.model_copy(update={"iteration": "again", "since_games": consumed}), DATASET.initial,
                     replace(world.context(), settings=settings))  # fmt: skip
        assert [type(one) for one in again] == [DatasetRefused]
    assert not set.intersection(*listed)
    world.add(recorded("late"), BatchAdmitted(batch="late-1", lane="hex", games=10, positions=100, model="", sha256=SHA,
                                              url="late", check=GOOD))  # fmt: skip
    world.tick(2, times=12)
    left = world.context().picture.shelf("hex").batches
    assert set(left) == listed[-1] | {f"t3{batch:02}-1" for batch in range(40)} | {"late-1"}


def test_an_order_to_seal_that_comes_late_counts_nothing_twice() -> None:
    """Its iteration was closed meanwhile, and the next one asked for the same games."""
    world, settings = World(CustodyPicture, plan, Settings(), joined()), Settings()
    world.add(recorded("t1"), BatchAdmitted(batch="t1-1", lane="hex", games=10, positions=100, model="", sha256=SHA, url="u",
                                            check=GOOD))  # fmt: skip
    first, second = (
        SealDataset(iteration=f"hex-{number}", lane="hex", window_positions=100, since_games=0) for number in (1, 2)
    )
    world.add(*seal(first, DATASET.initial, replace(world.context(), settings=settings)))
    assert [type(one) for one in seal(second, DATASET.initial, replace(world.context(), settings=settings))] == [
        DatasetRefused
    ]


def test_shards_of_a_refused_export_go_with_the_iterations_last_ones() -> None:
    shard = Artifact(name="shard.npz", role="shard", sha256=SHA, bytes=7, url="refused")
    refused = QualityRefused(iteration="hex-1", lane="hex", terms=(), deadline_at=at(9), shards=(shard,))
    exported = ExportFinished(iteration="hex-1", lane="hex", dataset=SHA, shards=(shard.model_copy(update={"url": "good"}),),
                              positions=1, coverage={}, duplicates=0, quality=1, deadline_at=at(9))  # fmt: skip
    closed = IterationClosed(iteration="hex-1", lane="hex", outcome="promoted", reason="x", games=1, seconds=1)
    next_one = exported.model_copy(update={"iteration": "hex-2", "shards": (shard.model_copy(update={"url": "next"}),)})
    world = World(CustodyPicture, plan, Settings(), refused, exported, closed, next_one)
    world.tick(times=3)
    assert [(fact.replicas, fact.bytes) for fact in world.of(ShardsRetired)] == [(("refused", "good"), 14)]


def test_the_tables_hold_the_last_data_set_of_an_iteration_however_the_log_is_cut() -> None:
    facts = [DatasetSealed(iteration="hex-1", lane="hex", dataset=sha, batches=(), games=games, positions=1, new_games=1,
                           new_positions=1, attempt=number)
             for number, (sha, games) in enumerate(((SHA, 1), (OTHER, 2)), start=1)]  # fmt: skip
    raws = [Raw(number, at(number), *encode(fact, Envelope(str(number), "t", at(number)))) for number, fact in
            enumerate(facts, start=1)]  # fmt: skip
    for cuts in ([raws], [[raws[0]], [raws[1]]]):
        projection = Projection(":memory:", [CUSTODY])
        for batch in cuts:
            projection.apply(batch)
        assert projection.con.execute("select dataset, games from sync_datasets").fetchall() == [(OTHER, 2)]
        projection.close()


def test_retiring_waits_for_a_store_that_deletes_nothing() -> None:
    """Bytes that nobody remembers would lie in the store for ever."""
    gone: set[str] = set()

    class Swept(CustodyPicture):
        """A worker has deleted what is in `gone`."""

        def apply(self, recorded: Recorded) -> None:
            super().apply(recorded)
            for replica in gone & set(self.undeleted):
                del self.undeleted[replica]

    world, settings = World(Swept, plan, Settings(keep_datasets=1, keep_s=1), joined()), Settings()
    many, consumed = MOST_UNDELETED + 50, 0
    for number in range(many + 2):
        world.add(recorded(f"t{number}"), BatchAdmitted(batch=f"t{number}-1", lane="hex", games=10, positions=100, model="",
                                                        sha256=SHA, url=f"u{number}", check=GOOD))  # fmt: skip
        if number < many - 1:
            continue
        sealing = SealDataset(iteration=f"hex-{number}", lane="hex", window_positions=1, since_games=consumed)
        (sealed,) = seal(sealing, DATASET.initial, replace(world.context(), settings=settings))
        assert isinstance(sealed, DatasetSealed)
        consumed += sealed.new_games
        world.add(sealed)
    world.tick(2, times=20)
    picture = world.context().picture
    assert len(world.of(BatchRetired)) == len(picture.undeleted) == MOST_UNDELETED
    begun_anew = CustodyPicture()
    begun_anew.load(picture.dump())
    assert begun_anew.undeleted == picture.undeleted
    gone |= set(picture.undeleted)
    world.tick(2, times=20)
    left = world.context().picture.undeleted
    assert set(left.values()) == {f"u{number}" for number in range(MOST_UNDELETED, many + 1)}


def test_deletion_is_a_fact_about_what_no_data_set_reaches() -> None:
    world = World(CustodyPicture, plan, Settings(keep_datasets=1, keep_s=100), joined())
    for number in range(3):
        task = f"t{number}"
        world.add(recorded(task))
        world.add(
            BatchAdmitted(
                batch=f"{task}-1",
                lane="hex",
                games=10,
                positions=100,
                model="",
                sha256=SHA,
                url=f"u{number}",
                check=GOOD,
            )
        )
        ctx = replace(world.context(), settings=Settings())
        sealing = SealDataset(iteration=f"hex-{number}", lane="hex", window_positions=1, since_games=10 * number)
        world.add(*seal(sealing, DATASET.initial, ctx))
    world.tick()
    assert world.of(BatchRetired) == [], "too young"
    world.tick(101)
    assert [(fact.batch, fact.replicas) for fact in world.of(BatchRetired)] == [("t0-1", ("u0",)), ("t1-1", ("u1",))]


def test_shards_are_retired_once_their_iteration_is_closed_and_the_lane_has_exported_anew() -> None:
    shard = Artifact(name="shard.npz", role="shard", sha256=SHA, bytes=7, url="u")
    exported = ExportFinished(iteration="hex-1", lane="hex", dataset=SHA, shards=(shard,), positions=1, coverage={}, duplicates=0,
                              quality=1, deadline_at=at(9))  # fmt: skip
    world = World(CustodyPicture, plan, Settings(), exported)
    world.tick(times=2)
    assert world.of(ShardsRetired) == []
    world.add(IterationClosed(iteration="hex-1", lane="hex", outcome="promoted", reason="x", games=1, seconds=1))
    world.tick(times=3)
    assert world.of(ShardsRetired) == [], "tasks of users' own kinds learn from the newest export"
    later = {"iteration": "hex-2", "shards": (shard.model_copy(update={"url": "v"}),)}
    world.add(exported.model_copy(update={**later, "lane": "ttt"}))
    world.tick(times=3)
    assert world.of(ShardsRetired) == []
    world.add(exported.model_copy(update={**later, "iteration": "hex-3"}))
    world.tick(times=3)
    assert [(fact.replicas, fact.bytes) for fact in world.of(ShardsRetired)] == [(("u",), 7)]
    assert list(world.context().picture.all.doomed.values()) == ["u"]


STEPS = st.lists(
    st.tuples(st.sampled_from(["record", "store", "break", "time", "lose", "join"]), st.integers(0, 5)), max_size=40
)


@examples(max_examples=50, deadline=None)
@any_given(STEPS)
def test_sums_balance_whatever_happens(steps: list[tuple[str, int]]) -> None:
    world = World(CustodyPicture, plan, Settings(lease_s=5, gone_s=50), joined())
    for what, number in steps:
        ctx = Context(now=at(world.now), settings=Settings(), gathered=(SHA if number % 2 else OTHER, 10))
        name = f"t{number}-1"
        state = BATCH.initial
        for one in world.facts:
            if one.fact.entity == "batch" and one.fact.id == name:
                state = BATCH.evolve(state, one)
        match what:
            case "record":
                world.add(*record(order(f"t{number}"), state, ctx))
            case "store":
                world.add(*stored(report(f"t{number}"), state, ctx))
            case "break":
                world.add(*failed(ReportTransferFailed(batch=name, grant=state.grant, reason="x"), state, ctx))
            case "lose":
                world.add(NodeLost(node="n1", boot="b", reason="silent", silent_s=20, limit_s=20))
            case "join":
                world.add(joined())
            case _:
                world.tick(7 * number)
        world.tick()
        assert violations(world.facts, GamesAreConserved) == []
        assert violations(world.facts, LimitsAreKept) == []
