"""Cut off, preempted, drained: what was made here is not lost, and nothing exclusive goes on unheard."""

from __future__ import annotations

import time
from pathlib import Path

from agent_node import GOOD, PARTIAL, Node, alive, children

from node_agent.custody import Custody
from sparring.contracts.node_agent import DrainAgent, UploadBatch
from sparring.contracts.parts import Check
from sparring.contracts.selfplay_orch import ReportTaskFailed, ReportTaskFinished, ReportTaskStarted
from sparring.contracts.sync import RecordGames, ReportStored, ReportTransferFailed
from sparring.testing import eventually
from sparring.testing.proxy import Proxy

MANY = GOOD.replace('"games": 5', '"games": job["params"]["games"]')


async def progressed(node: Node) -> None:
    async def runs() -> bool:
        return any(one.done for one in (await node.beat()).running)

    await eventually(runs, within_s=20)


async def test_rule_20_a_node_that_was_cut_off_goes_on_and_everything_arrives_afterwards(idle: Node) -> None:
    with Proxy(idle.url) as proxy:
        idle.url = proxy.url
        idle.start()
        await idle.run(GOOD, params={"seconds": 3})
        await idle.hears(ReportTaskStarted)
        proxy.cut()
        games, spool = idle.folder / "node" / "games" / "t-1", idle.folder / "node" / "spool"
        await eventually(games.exists, within_s=30)
        await eventually(lambda: len(list(spool.glob("*.json"))) >= 3, within_s=30)
        assert await idle.said(ReportTaskFinished) == []
        proxy.heal()
        assert (await idle.hears(ReportTaskFinished, within_s=60)).task == "t"
        assert len(await idle.said(RecordGames)) == 1
        assert games.exists(), "custody was not confirmed"


async def test_exclusive_work_stops_at_its_own_deadline_when_it_is_cut_off(idle: Node) -> None:
    idle.more = ("--slot-lease-s", "3", "--renew-s", "1")
    with Proxy(idle.url) as proxy:
        idle.url = proxy.url
        idle.start()
        await idle.run(PARTIAL, kind="train", slot_token=1, exclusive=True, timeout_s=600)
        await idle.run(PARTIAL, task="tune", kind="tune", exclusive=True, timeout_s=600)
        await eventually(lambda: len(children(idle)) == 2, within_s=20)
        family = children(idle)
        proxy.cut()
        await eventually(lambda: not any(alive(one) for one in family), within_s=30)
        proxy.heal()

        async def both() -> bool:
            return len(await idle.said(ReportTaskFailed)) == 2

        await eventually(both, within_s=60)
        reasons = {one.task: one.reason for one in await idle.said(ReportTaskFailed)}
        assert "training slot is lost" in reasons["t"]
        assert "cut off" in reasons["tune"]


async def test_rule_20_a_notice_stops_programs_with_what_they_have_and_brings_games_away_the_most_first(
    idle: Node,
) -> None:
    notice = idle.folder / "notice"
    idle.more = ("--notice-file", str(notice), "--uplink-bytes-per-s", "1000000")
    idle.start()
    for task, games in (("few", 5), ("most", 500), ("more", 50)):
        await idle.run(MANY, task=task, params={"games": games})
    await idle.run(PARTIAL, kind="train", timeout_s=600)
    await eventually(lambda: len(list((idle.folder / "node" / "games").glob("*-1"))) == 3, within_s=30)
    await progressed(idle)
    notice.write_text("soon")

    async def all_away() -> bool:
        return len(await idle.said(ReportStored)) == 3

    await eventually(all_away, within_s=30)
    assert {one.batch for one in await idle.said(ReportStored)} == {"most-1", "more-1", "few-1"}

    async def partial_counts() -> bool:
        return any(one.evidence == {"steps": 3} for one in await idle.said(ReportTaskFinished))

    await eventually(partial_counts, within_s=30)
    assert idle.process is not None
    assert await eventually(lambda: idle.process is not None and idle.process.poll() is not None, within_s=40)


async def test_a_drained_node_leaves_within_the_grace_time_and_has_said_everything(node: Node) -> None:
    await node.run(PARTIAL, kind="train", timeout_s=600)
    await progressed(node)
    await node.order(DrainAgent(node="n1", grace_s=5, reason="test"), "drain")
    assert (await node.hears(ReportTaskFinished)).evidence == {"steps": 3}
    assert await eventually(lambda: node.process is not None and node.process.poll() is not None, within_s=40)


async def test_an_upload_never_goes_faster_than_its_grant(node: Node) -> None:
    large = GOOD.replace("content = ", "content = b'x' * 600_000 or ")
    await node.run(large)
    record = await node.hears(RecordGames)
    began = time.monotonic()
    order = UploadBatch(node="n1", batch="t-1", sha256=record.sha256, grant=1, lease_s=60, bytes_per_s=200_000)
    await node.order(order, "up")
    await node.hears(ReportStored)
    assert time.monotonic() - began >= 2.5, "600 kB at 200 kB a second"


async def test_an_agent_says_when_it_is_asked_for_a_batch_that_its_disk_does_not_have(node: Node) -> None:
    await node.beat()
    order = UploadBatch(node="n1", batch="gone-1", sha256="0" * 64, grant=3, lease_s=60, bytes_per_s=0)
    await node.order(order, "up")
    report = await node.hears(ReportTransferFailed)
    assert (report.batch, report.grant, report.missing) == ("gone-1", 3, True)


class _Spool:
    def __init__(self) -> None:
        self.said: list[object] = []

    def put(self, order: object, **_: object) -> None:
        self.said.append(order)


def record(batch: str, games: int) -> RecordGames:
    return RecordGames(
        batch=batch, lane="hex", task=batch.rpartition("-")[0], attempt=1, node="n1", ephemeral=False, model="",
        sha256="0" * 64, bytes=1, games=games, positions=games, check=Check(ok=True),
    )  # fmt: skip


def test_rule_9_games_are_on_disk_before_anybody_is_told_and_a_new_life_records_them_again(tmp_path: Path) -> None:
    spool = _Spool()
    custody = Custody(tmp_path / "games", "n1", None, spool, None)  # type: ignore[arg-type]
    for batch, games in (("a-1", 3), ("b-1", 30)):
        (tmp_path / "made").write_text("x")
        custody.keep(record(batch, games), tmp_path / "made")
    assert len(spool.said) == 2
    assert [one.batch for one in custody.unsynced(time.time())] == ["b-1", "a-1"], "most games first"
    again = _Spool()
    Custody(tmp_path / "games", "n1", None, again, None).recover()  # type: ignore[arg-type]
    assert sorted(one.batch for one in again.said) == ["a-1", "b-1"]  # type: ignore[attr-defined]
    custody.release("a-1")
    assert [path.name for path in custody.batches()] == ["b-1"]
