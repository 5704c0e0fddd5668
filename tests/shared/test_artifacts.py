"""Both homes of artifacts keep one promise: the content is what its name says."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.js.errors import NotFoundError
from nats.js.object_store import ObjectStore

from sparring.artifacts import ArtifactStore, JetStreamStore, StoreUnavailable, open_store, sha256_of
from sparring.errors import ArtifactMissing, BadInput, HashMismatch
from sparring.testing import eventually


@pytest_asyncio.fixture(params=["jetstream", "folder"])
async def store(request: pytest.FixtureRequest, nc: Client, tmp_path: Path) -> AsyncIterator[ArtifactStore]:
    spec = "nats://ARTIFACTS" if request.param == "jetstream" else f"file://{tmp_path}/store"
    yield await open_store(spec, nc.jetstream())


def made(folder: Path, name: str, content: bytes) -> tuple[Path, str]:
    path = folder / name
    path.write_bytes(content)
    return path, sha256_of(path)[0]


async def test_what_is_put_comes_back(store: ArtifactStore, tmp_path: Path) -> None:
    path, sha256 = made(tmp_path, "games", b"x" * 300_000)
    url = await store.put(path, sha256)
    assert await store.put(path, sha256) == url
    await store.get(url, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    assert await store.digest(url) == (sha256, 300_000)


@pytest.mark.parametrize("how", ["get", "digest"])
async def test_content_whose_parts_are_gone_is_not_waited_for_without_an_end(
    nc: Client, tmp_path: Path, how: str
) -> None:
    """A bucket that was repaired by hand: nats-py waits for the chunks for ever, and so did the node's task."""
    store = JetStreamStore(nc.jetstream(), silent_s=0.3)
    path, sha256 = made(tmp_path, "games", b"x" * 300_000)
    url = await store.put(path, sha256)
    await nc.jetstream().purge_stream("OBJ_ARTIFACTS", subject="$O.ARTIFACTS.C.>")
    with pytest.raises(StoreUnavailable, match=r"nothing came for 0\.3 s"):
        async with asyncio.timeout(20):
            await (store.digest(url) if how == "digest" else store.get(url, tmp_path / "back"))
    assert not (tmp_path / "back").exists() and not list(tmp_path.glob(".back*"))
    assert not nc._subs or all("$O" not in one.subject for one in nc._subs.values())

    async def left() -> bool:
        return (await nc.jetstream().stream_info("OBJ_ARTIFACTS")).state.consumer_count == 0

    await eventually(left, within_s=30, what="nobody listens for the chunks any more")


async def test_missing_content_is_named(store: ArtifactStore, tmp_path: Path) -> None:
    path, sha256 = made(tmp_path, "games", b"abc")
    url = await store.put(path, sha256)
    await store.delete(url)
    await store.delete(url)
    with pytest.raises(ArtifactMissing, match=sha256):
        await store.get(url, tmp_path / "back")
    assert not (tmp_path / "back").exists()


async def test_content_under_a_wrong_name_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    path, sha256 = made(tmp_path, "games", b"abc")
    wrong = "0" * 64
    url = await store.put(path, wrong)
    assert (await store.digest(url))[0] == sha256
    with pytest.raises(HashMismatch):
        await store.get(url, tmp_path / "back")
    assert not (tmp_path / "back").exists()


async def test_what_arrived_broken_is_not_left_alone_when_it_is_brought_again(
    store: ArtifactStore, tmp_path: Path
) -> None:
    broken, _ = made(tmp_path, "broken", b"abd")
    path, sha256 = made(tmp_path, "whole", b"abc")
    url = await store.put(broken, sha256)
    assert (await store.digest(url))[0] != sha256
    assert await store.put(path, sha256) == url
    assert await store.digest(url) == (sha256, 3)


async def messages(nc: Client) -> int:
    """What the bucket's stream holds, tombstones included."""
    return (await nc.jetstream().stream_info("OBJ_ARTIFACTS")).state.messages


@pytest.mark.parametrize("cut_at", [1, 2])
async def test_a_deletion_that_was_cut_short_is_finished_by_the_next_one_and_leaves_nothing(
    nc: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_at: int
) -> None:
    js = nc.jetstream()
    store, purge, purges = JetStreamStore(js), js.purge_stream, 0
    path, sha256 = made(tmp_path, "games", b"x" * 300_000)
    url = await store.put(path, sha256)

    async def purge_stream(name: str, **more: Any) -> bool:
        nonlocal purges
        purges += 1
        if purges == cut_at:
            raise TimeoutError
        return await purge(name, **more)

    monkeypatch.setattr(js, "purge_stream", purge_stream)
    with pytest.raises(StoreUnavailable):
        await store.delete(url)
    assert await messages(nc) > 0
    with pytest.raises(ArtifactMissing):
        await store.get(url, tmp_path / "back")
    await store.delete(url)
    assert await messages(nc) == 0
    assert await store.put(path, sha256) == url
    assert await store.digest(url) == (sha256, 300_000)


async def test_what_is_put_while_it_is_deleted_stays_whole(
    nc: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    js = nc.jetstream()
    store, purge, between = JetStreamStore(js), js.purge_stream, list[str]()
    path, sha256 = made(tmp_path, "games", b"x" * 300_000)
    url = await store.put(path, sha256)

    async def purge_stream(name: str, *, subject: str, **more: Any) -> bool:
        if ".M." in subject and not between:
            between.append(subject)
            await JetStreamStore(nc.jetstream()).put(path, sha256)
        return await purge(name, subject=subject, **more)

    monkeypatch.setattr(js, "purge_stream", purge_stream)
    await store.delete(url)
    assert between
    assert await store.digest(url) == (sha256, 300_000)


async def test_an_upload_that_is_called_off_takes_back_what_it_had_sent(nc: Client, tmp_path: Path) -> None:
    store = JetStreamStore(nc.jetstream())
    path, sha256 = made(tmp_path, "games", b"x" * 2_000_000)
    # ten seconds
    putting = asyncio.create_task(store.put(path, sha256, bytes_per_s=200_000))

    async def begun() -> bool:
        return await messages(nc) > 0

    await eventually(begun)
    putting.cancel()
    await asyncio.wait((putting,))
    assert putting.cancelled()
    assert await messages(nc) == 0


async def test_what_half_uploads_left_long_ago_is_swept_and_nothing_else(
    store: ArtifactStore, nc: Client, tmp_path: Path
) -> None:
    assert await store.sweep(timedelta()) == 0
    path, sha256 = made(tmp_path, "games", b"x" * 300_000)
    url = await store.put(path, sha256)
    js, home = nc.jetstream(), tmp_path / "store"
    if isinstance(store, JetStreamStore):
        for number in range(2):
            await js.publish("$O.ARTIFACTS.C.half", b"%d" % number)
    else:
        for name in (f".{sha256}.12345678", ".of-others"):
            (home / name).write_text("x")
            os.utime(home / name, (1e9, 1e9))
    before = await messages(nc)
    if isinstance(store, JetStreamStore):
        assert await store.sweep(timedelta(hours=1)) == 0, "it may be under way"
    assert await store.sweep(timedelta()) == 1
    assert await store.sweep(timedelta()) == 0
    assert await messages(nc) == before - (2 if isinstance(store, JetStreamStore) else 0)
    assert await store.digest(url) == (sha256, 300_000)
    assert [one.name for one in home.glob(".*")] == ([] if isinstance(store, JetStreamStore) else [".of-others"])


async def test_a_list_that_lacks_a_name_gives_nothing_away(
    nc: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a broken connection swallowed of the bucket's list is no half upload."""
    store = await open_store("nats://ARTIFACTS", nc.jetstream())
    path, sha256 = made(tmp_path, "games", b"x" * 300_000)
    url = await store.put(path, sha256)

    async def nothing(*_: object) -> list[object]:
        raise NotFoundError

    monkeypatch.setattr(ObjectStore, "list", nothing)
    assert await store.sweep(timedelta()) == 0
    assert await store.digest(url) == (sha256, 300_000)


async def test_an_unknown_home_is_refused_with_its_remedy(nc: Client) -> None:
    with pytest.raises(BadInput, match="nats://ARTIFACTS"):
        await open_store("ftp://somewhere", nc.jetstream())
