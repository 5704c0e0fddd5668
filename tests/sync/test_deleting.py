"""Retired bytes are deleted, and one that can't be keeps nobody else waiting."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from sparring.artifacts import StoreUnavailable
from sparring.contracts.parts import Artifact, Check
from sparring.contracts.pipeline import ExportFinished
from sparring.contracts.sync import BatchAdmitted, BatchLost, BatchRetired, GamesRecorded, ShardsRetired
from sparring.decider import Recorded
from sparring.testing import at, eventually
from sync import workers
from sync.core.picture import CustodyPicture
from sync.workers import delete_retired


async def test_one_that_cannot_be_deleted_keeps_nobody_waiting_and_a_follower_deletes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "SWEEP_S", 0.001)
    picture = CustodyPicture()
    undeleted = picture.undeleted
    undeleted |= {f"b{number}/0": f"u{number}" for number in range(20)}
    deleted, asked, enough = list[str](), list[str](), asyncio.Event()
    stopping = asyncio.Event()

    async def delete(url: str) -> None:
        asked.append(url)
        if url in ("u0", "u1", "u2", "u3"):
            raise OSError(13, "Permission denied") if url == "u0" else StoreUnavailable(url)
        deleted.append(url)
        if len(deleted) == 16:
            enough.set()

    shell: Any = SimpleNamespace(
        stopping=stopping, leads=False, picture=picture, log=structlog.get_logger(),
        artifacts=SimpleNamespace(delete=delete), pause=asyncio.sleep,
    )  # fmt: skip
    sweeping = asyncio.create_task(delete_retired(shell))
    await asyncio.sleep(0)
    assert asked == []
    shell.leads = True
    await asyncio.wait_for(enough.wait(), 30)
    stopping.set()
    await sweeping
    assert set(undeleted.values()) == {"u0", "u1", "u2", "u3"}
    assert sorted(deleted) == sorted({f"u{number}" for number in range(4, 20)})


SHA, OTHER, SHARD = "a" * 64, "b" * 64, "c" * 64
URL = "nats://ARTIFACTS/"
GOOD = Check(ok=True, games=10, positions=100, policy_coverage=1.0, mean_plies=10)


class Sweeping:
    """A leader's worker over a picture; `deleted` are the URLs that it deleted."""

    def __init__(self, picture: CustodyPicture | None = None) -> None:
        self.picture, self.deleted, self.rounds = picture or CustodyPicture(), list[str](), 0
        self.stopping, self.log, self.artifacts = asyncio.Event(), structlog.get_logger(), self
        self.sequence = 0

    @property
    def leads(self) -> bool:
        self.rounds += 1
        return True

    async def delete(self, url: str) -> None:
        self.deleted.append(url)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def hears(self, *facts: Any) -> None:
        for fact in facts:
            self.sequence += 1
            self.picture.apply(Recorded(self.sequence, at(0), fact))

    async def looks(self) -> list[str]:
        """What lies there after two whole rounds."""
        sweeping, begun = asyncio.create_task(delete_retired(self)), self.rounds
        await eventually(lambda: self.rounds > begun + 2, every_s=0.001)
        self.stopping.set()
        await sweeping
        self.stopping.clear()
        return self.deleted


def recorded(name: str, sha256: str = SHA) -> GamesRecorded:
    return GamesRecorded(batch=f"{name}-1", lane="hex", task=name, attempt=1, node="n1", model="", sha256=sha256, bytes=10,
                         games=10, positions=100, check=GOOD)  # fmt: skip


def admitted(name: str, sha256: str = SHA, home: str = URL) -> BatchAdmitted:
    return BatchAdmitted(batch=f"{name}-1", lane="hex", games=10, positions=100, model="", sha256=sha256, url=home + sha256,
                         check=GOOD)  # fmt: skip


def retired(name: str, sha256: str = SHA) -> BatchRetired:
    return BatchRetired(batch=f"{name}-1", lane="hex", games=10, replicas=(URL + sha256,), reason="x")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SWEEP_S", 0.001)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("home", [URL, "file:///srv/artifacts/"])
async def test_content_that_another_batch_needs_stays_until_that_is_retired_too(home: str) -> None:
    one = Sweeping()
    one.hears(admitted("a"), admitted("b", home=home), admitted("c", OTHER), retired("a"), retired("c", OTHER))
    assert await one.looks() == [URL + OTHER]
    assert one.picture.undeleted == {}, "retiring does not wait for it"
    again = Sweeping(CustodyPicture())
    again.picture.load(one.picture.dump())
    assert await again.looks() == [URL + OTHER], "a new process asks the same question of all that was ever retired"
    again.hears(retired("b"))
    assert await again.looks() == [URL + OTHER, URL + SHA]


@pytest.mark.usefixtures("quick")
async def test_content_that_a_batch_on_its_way_has_waits_for_what_becomes_of_it() -> None:
    one = Sweeping()
    one.hears(admitted("a"), recorded("b"), retired("a"))
    assert await one.looks() == []
    one.hears(BatchLost(batch="b-1", lane="hex", games=10, proof="x"))
    assert await one.looks() == [URL + SHA]


@pytest.mark.usefixtures("quick")
async def test_shards_that_two_exports_made_alike_stay_until_both_are_spent() -> None:
    shard = Artifact(name="shard.npz", role="shard", sha256=SHARD, bytes=7, url=URL + SHARD)
    one = Sweeping()
    for name in ("hex-1", "hex-2"):
        one.hears(ExportFinished(iteration=name, lane="hex", dataset=SHA, shards=(shard,), positions=1, coverage={},
                                 duplicates=0, quality=1, deadline_at=at(9)))  # fmt: skip
    spent = ShardsRetired(iteration="hex-1", lane="hex", replicas=(shard.url,), bytes=7)
    one.hears(spent)
    assert await one.looks() == []
    one.hears(spent.model_copy(update={"iteration": "hex-2"}))
    assert await one.looks() == [shard.url]


@pytest.mark.usefixtures("quick")
async def test_half_uploads_are_swept_by_the_leader_whatever_the_store_said_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "HALF_UPLOADS", timedelta(milliseconds=6))
    one, asked = Sweeping(), list[timedelta]()

    async def sweep(older_than: timedelta) -> int:
        asked.append(older_than)
        if len(asked) == 1:
            raise StoreUnavailable("u")
        return 3

    one.sweep = sweep  # type: ignore[attr-defined]
    with capture_logs() as said:
        sweeping = asyncio.create_task(workers.sweep_half_uploads(one))
        await eventually(lambda: len(said) > 1, every_s=0.001)
    one.stopping.set()
    await sweeping
    assert asked[0] == timedelta(milliseconds=6)
    assert [said[0]["log_level"], said[1].get("uploads")] == ["warning", 3]
