"""A batch on its whole way, over a real store: what its node holds, what arrives, what the receiver makes of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
import structlog
from nats.aio.client import Client

from node_agent.custody import Custody
from sparring.artifacts import ArtifactStore, open_store, sha256_of
from sparring.contracts.base import Fact
from sparring.contracts.health import NodeJoined
from sparring.contracts.node_agent import ReleaseCustody, UploadBatch
from sparring.contracts.parts import Check
from sparring.contracts.sync import (
    BatchAdmitted,
    BatchQuarantined,
    BatchStored,
    GamesRecorded,
    RecordGames,
    ReportStored,
    TransferFailed,
)
from sparring.decider import replace
from sparring.testing.scenario import fold
from sparring.testing.world import World
from sync.core.batch import BATCH, stored
from sync.core.picture import CustodyPicture
from sync.core.plan import plan
from sync.settings import Settings
from sync.workers import digest_of

CHECK = Check(ok=True, games=10, positions=100, policy_coverage=1.0, mean_plies=10)


class Way:
    """One node with one batch, the store, and sync's decisions."""

    def __init__(self, folder: Path, store: ArtifactStore) -> None:
        self.store, self.said = store, list[Any]()
        spool: Any = SimpleNamespace(put=lambda order, **_: self.said.append(order))
        self.custody = Custody(folder / "games", "n1", store, spool, structlog.get_logger())
        played = folder / "played"
        played.write_bytes(b"ten games")
        self.sha256, size = sha256_of(played)
        record = RecordGames(batch="t-1", lane="hex", task="t", attempt=1, node="n1", model="", sha256=self.sha256,
                             bytes=size, games=10, positions=100, check=CHECK)  # fmt: skip
        self.file = self.custody.keep(record, played)
        joined = NodeJoined(node="n1", boot="b", build="1", compatible=True, ephemeral=False, tags=(), kinds=(),
                            machine="n1", cores=8, memory_bytes=2**35, gpus=(), seats=1)  # fmt: skip
        recorded = GamesRecorded.model_validate(record.model_dump(exclude={"url"}))
        self.world = World(CustodyPicture, plan, Settings(), joined, recorded)

    async def bring(self, arrives: bytes | None = None) -> list[Fact]:
        """The next grant, as far as what becomes of it; `arrives` is what the store holds in the end, if not what was sent."""
        self.world.tick(60, times=2)
        await self.custody.upload(self.world.orders(UploadBatch)[-1])
        report = self.said[-1]
        assert isinstance(report, ReportStored)
        if arrives is not None:
            broken = self.file.with_name(".broken")
            broken.write_bytes(arrives)
            await self.store.delete(report.url)
            await self.store.put(broken, report.sha256)
        batch = fold(BATCH, *(one.fact for one in self.world.facts if one.fact.entity == "batch"))
        gathered = await digest_of(report, SimpleNamespace(artifacts=self.store))
        facts = stored(report, batch, replace(self.world.context(), gathered=gathered))
        self.world.add(*facts)
        self.world.tick()
        return facts

    def released(self) -> list[str]:
        return [one.batch for one in self.world.orders(ReleaseCustody)]


@pytest_asyncio.fixture(params=["nats://ARTIFACTS", "file://{}/store"])
async def way(request: pytest.FixtureRequest, nc: Client, tmp_path: Path) -> Way:
    return Way(tmp_path, await open_store(request.param.format(tmp_path), nc.jetstream()))


async def test_what_does_not_arrive_as_it_was_sent_is_brought_again_and_admitted(way: Way) -> None:
    (failure,) = await way.bring(arrives=b"ten gamez")
    assert isinstance(failure, TransferFailed) and "was sent" in failure.reason
    assert way.file.exists() and way.released() == []
    facts = await way.bring()
    assert [type(fact) for fact in facts] == [BatchStored, BatchAdmitted]
    assert way.released() == ["t-1"]


async def test_what_changed_on_its_node_is_quarantined_and_kept_by_the_store_so_that_the_node_may_let_it_go(
    way: Way,
) -> None:
    """It stayed on its node for ever, and kept its drain from ending."""
    way.file.write_bytes(b"ten gamez")
    arrived, quarantined = await way.bring()
    assert isinstance(arrived, BatchStored) and isinstance(quarantined, BatchQuarantined)
    assert quarantined.reason == f"SHA-256 is {arrived.sha256[:12]}, {way.sha256[:12]} was recorded"
    assert await way.store.digest(arrived.url) == (sha256_of(way.file)[0], 9)
    assert way.released() == ["t-1"]
