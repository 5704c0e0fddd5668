"""Both homes of artifacts keep one promise: the content is what its name says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from nats.aio.client import Client

from sparring.artifacts import ArtifactStore, open_store, sha256_of
from sparring.errors import ArtifactMissing, BadInput, HashMismatch


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


async def test_an_unknown_home_is_refused_with_its_remedy(nc: Client) -> None:
    with pytest.raises(BadInput, match="nats://ARTIFACTS"):
        await open_store("ftp://somewhere", nc.jetstream())
