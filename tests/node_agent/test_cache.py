"""A node's copies: within their bound, never one that is in use, and an input's manifest stands for what it lists."""

from __future__ import annotations

import asyncio
import os
import tempfile
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from agent_node import Node
from hypothesis import given as any_given
from hypothesis import strategies as st
from nats.aio.client import Client

from node_agent.cache import Cache
from node_agent.child import TaskFailure
from node_agent.inputs import AT_ONCE, fetched
from node_agent.roster import Running
from sparring import clock, manifest
from sparring.artifacts import open_store
from sparring.contracts.node_agent import StartTask
from sparring.contracts.parts import Artifact, TaskSpec
from sparring.contracts.selfplay_orch import ReportTaskFailed, ReportTaskFinished
from sparring.contracts.sync import BatchRef, DatasetSealed
from sparring.entity_store import Because, EntityStore
from sparring.errors import ArtifactMissing, HashMismatch, LogUnavailable
from sparring.log import JetStreamLog, MemoryLog, Raw
from sparring.testing import eventually
from sync.core.dataset import DATASET


class Shelves:
    """A store in memory; `gets` counts, `most` is how many were fetched at once."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents, self.gets, self.now, self.most = contents, 0, 0, 0

    async def get(self, url: str, to: Path) -> None:
        self.gets, self.now = self.gets + 1, self.now + 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        if url not in self.contents:
            raise ArtifactMissing(url)
        to.write_bytes(self.contents[url])


def artifact(content: bytes) -> Artifact:
    digest = sha256(content).hexdigest()
    return Artifact(name="a", role="games", sha256=digest, bytes=len(content), url=digest)


def shelves(*contents: bytes) -> tuple[Any, list[Artifact]]:
    made = [artifact(one) for one in contents]
    return Shelves({one.url: content for one, content in zip(made, contents, strict=True)}), made


async def test_the_least_recently_used_go_and_never_one_in_use(tmp_path: Path) -> None:
    store, (first, second, third) = shelves(b"1" * 100, b"2" * 100, b"3" * 100)
    cache = Cache(tmp_path, store, 250)
    held = await cache.fetch(first)
    gone = await cache.fetch(second)
    cache.release(second.sha256)
    kept = await cache.fetch(third)
    assert (held.exists(), gone.exists(), kept.exists()) == (True, False, True)


async def test_the_order_of_use_outlives_the_process(tmp_path: Path) -> None:
    store, (first, second, third) = shelves(b"1" * 100, b"2" * 100, b"3" * 100)
    cache = Cache(tmp_path, store, 250)
    for one in (first, second):
        path = await cache.fetch(one)
        os.utime(path, (1_000, 1_000) if one is first else (2_000, 2_000))
        cache.release(one.sha256)
    again = Cache(tmp_path, store, 250)
    await again.fetch(third)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([second.sha256, third.sha256])


async def test_what_is_asked_for_twice_at_once_is_fetched_once(tmp_path: Path) -> None:
    store, (one,) = shelves(b"x")
    cache = Cache(tmp_path, store, 250)
    await asyncio.gather(*(cache.fetch(one) for _ in range(5)))
    assert store.gets == 1
    assert len(cache._fetching) == 0, "a lock is gone with its last user"


async def test_a_copy_that_somebody_deleted_is_fetched_anew(tmp_path: Path) -> None:
    store, (one,) = shelves(b"x")
    cache = Cache(tmp_path, store, 250)
    (await cache.fetch(one)).unlink()
    assert (await cache.fetch(one)).read_bytes() == b"x"


STEPS = st.lists(
    st.tuples(st.sampled_from(["fetch", "release", "keep", "restart", "miss"]), st.integers(0, 7)), max_size=40
)


@any_given(STEPS)
def test_the_bound_holds_and_what_is_held_stays_whatever_happens(steps: list[tuple[str, int]]) -> None:
    asyncio.run(_bounded(steps))


async def _bounded(steps: list[tuple[str, int]]) -> None:
    store, made = shelves(*(bytes([number]) * (10 + 5 * number) for number in range(8)))
    with tempfile.TemporaryDirectory() as folder:
        home, held, before = Path(folder) / "cache", list[int](), 0
        cache = Cache(home, store, 100)
        for what, number in steps:
            match what:
                case "fetch":
                    await cache.fetch(made[number])
                    held.append(number)
                case "release" if number in held:
                    held.remove(number)
                    cache.release(made[number].sha256)
                case "keep":
                    own = Path(folder) / "own"
                    own.write_bytes(store.contents[made[number].url])
                    await cache.keep(own, made[number].sha256)
                case "restart":
                    cache, held = Cache(home, store, 100), []
                case "miss":
                    with pytest.raises(ArtifactMissing):
                        await cache.fetch(artifact(b"nowhere"))
            lying = {one.name: one.stat().st_size for one in home.iterdir()}
            assert {made[one].sha256 for one in held} <= set(lying)
            assert cache._bytes == sum(lying.values())
            in_use = sum(lying[one] for one in {made[one].sha256 for one in held})
            # the newest one may stand beside what is held; room is made when something comes
            assert sum(lying.values()) <= max(100, in_use + 45, before)
            before = sum(lying.values())


# ---- a task's inputs


async def full_disk(_: Artifact) -> Path:
    raise OSError(28, "No space left on device")


def running(**inputs: list[Artifact]) -> Running:
    given = {name: tuple(many) for name, many in inputs.items()}
    spec = TaskSpec(kind="export", lane="hex", seed=1, argv=("true",), timeout_s=60, inputs=given)
    return Running(StartTask(node="n1", boot="b", task="t", attempt=1, spec=spec))


async def test_inputs_are_fetched_several_at_a_time_and_held_until_the_end(tmp_path: Path) -> None:
    store, made = shelves(*(bytes([number]) for number in range(40)))
    agent: Any = SimpleNamespace(cache=Cache(tmp_path, store, 1_000), nc=None)
    async with fetched(agent, running(batches=made, model=made[:1])) as paths:
        assert [Path(one).name for one in paths["batches"]] == [one.sha256 for one in made]
        assert 1 < store.most <= AT_ONCE
        assert set(agent.cache._in_use) == {one.sha256 for one in made}
    assert not agent.cache._in_use


async def test_when_one_input_is_missing_or_the_task_is_stopped_nothing_stays_held(tmp_path: Path) -> None:
    store, made = shelves(*(bytes([number]) for number in range(40)))
    agent: Any = SimpleNamespace(cache=Cache(tmp_path, store, 1_000), nc=None)
    with pytest.raises(TaskFailure, match="input a: "):
        async with fetched(agent, running(batches=[*made[:20], artifact(b"nowhere"), *made[20:]])):
            raise AssertionError
    assert not agent.cache._in_use and store.gets < len(made)
    full: Any = SimpleNamespace(cache=SimpleNamespace(fetch=full_disk), nc=None)
    with pytest.raises(TaskFailure, match=r"input a: .*No space left"):
        async with fetched(full, running(batches=made)):
            raise AssertionError
    stopped = running(batches=made)
    stopped.cancelled = "halted"
    with pytest.raises(TaskFailure, match="halted"):
        async with fetched(agent, stopped):
            raise AssertionError
    assert not agent.cache._in_use


# ---- manifests


def sealed(batches: list[Artifact], iteration: str = "hex-1") -> DatasetSealed:
    listed = tuple(BatchRef(batch=one.name, sha256=one.sha256, url=one.url, games=1, positions=1) for one in batches)
    return DatasetSealed(iteration=iteration, lane="hex", dataset=manifest.manifest_hash(iteration, listed), batches=listed,
                         games=1, positions=1, new_games=1, new_positions=1)  # fmt: skip


async def append(log: Any, fact: DatasetSealed) -> None:
    store = EntityStore(log)
    await store.execute([(DATASET, fact.iteration)], lambda _: [fact], Because("test", clock.now(), clock.new_id()))


async def test_a_manifest_stands_for_what_it_lists_and_for_nothing_else() -> None:
    log, fact = MemoryLog(), sealed([artifact(b"x"), artifact(b"y")])
    with pytest.raises(ArtifactMissing, match="never sealed"):
        await manifest.load(log, manifest.reference(fact))
    await append(log, fact)
    found = await manifest.load(log, manifest.reference(fact))
    assert [one.sha256 for one in found] == [one.sha256 for one in fact.batches]
    with pytest.raises(HashMismatch, match="was asked for"):
        await manifest.load(log, manifest.reference(fact).model_copy(update={"sha256": "0" * 64}))


async def test_a_manifest_whose_fact_was_archived_says_so_and_a_lagging_replica_is_asked_again() -> None:
    log, fact = MemoryLog(), sealed([artifact(b"x")])
    await append(log, fact)
    await EntityStore(log).carry_forward(DATASET, "hex-1", Because("archivist", clock.now(), "c"))
    assert await manifest.load(log, manifest.reference(fact)), "carried, and still there"
    (carried,) = [one for one in await log.load("evt.sync.dataset.hex-1.>") if one.subject.endswith(".StateCarried")]

    class Purged(MemoryLog):
        async def load(self, pattern: str, after: int = 0) -> list[Raw]:
            return [carried]

        async def last(self, pattern: str) -> int:
            return end

    end = carried.sequence
    with pytest.raises(ArtifactMissing, match="archived meanwhile"):
        await manifest.load(Purged(), manifest.reference(fact))
    end += 1
    with pytest.raises(LogUnavailable, match="lags"):
        await manifest.load(Purged(), manifest.reference(fact))


READS = """
import hashlib, json, sys
job, out = json.load(open(sys.argv[1])), sys.argv[2]
read = sorted(open(path).read() for path in job["inputs"]["batches"])
print(json.dumps({"result": {"files": [], "evidence": {"read": read, "model": job["inputs"]["model"][-64:]}}}))
"""


async def test_a_program_finds_every_batch_of_its_manifest(node: Node, nc: Client, tmp_path: Path) -> None:
    store, made = await open_store("nats://ARTIFACTS", nc.jetstream()), []
    for number in range(30):
        file = tmp_path / str(number)
        file.write_text(f"games {number:02}")
        one = artifact(file.read_bytes())
        made.append(one.model_copy(update={"url": await store.put(file, one.sha256), "name": f"t{number}"}))
    fact = sealed(made[1:])
    await append(JetStreamLog(nc), fact)
    inputs = {"batches": (manifest.reference(fact),), "model": (made[0],)}
    await node.run(READS, kind="export", inputs=inputs)
    done = await node.hears(ReportTaskFinished)
    assert done.evidence == {"read": [f"games {number:02}" for number in range(1, 30)], "model": made[0].sha256}


async def test_an_input_that_is_nowhere_fails_the_task_by_name(node: Node, nc: Client, tmp_path: Path) -> None:
    store = await open_store("nats://ARTIFACTS", nc.jetstream())
    file = tmp_path / "model"
    file.write_text("weights")
    there = artifact(b"weights")
    there = there.model_copy(update={"url": await store.put(file, there.sha256)})
    lacking = artifact(b"nowhere").model_copy(update={"name": "lacking", "url": ""})
    await node.run(READS, kind="export", inputs={"batches": (there, lacking), "model": (there,)})
    assert "input lacking" in (await node.hears(ReportTaskFailed)).reason
    unsealed = {"batches": (manifest.reference(sealed([there], "hex-9")),), "model": (there,)}
    await node.run(READS, task="u", kind="export", inputs=unsealed)

    async def said() -> Any:
        return [one.reason for one in await node.said(ReportTaskFailed) if one.task == "u"]

    assert "the stream holds no such data set: it was never sealed" in (await eventually(said, within_s=30))[0]
