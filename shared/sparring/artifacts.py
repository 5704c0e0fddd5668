"""Files by their content: a store with two homes. Events carry the reference, never the blob."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError, ObjectNotFoundError
from nats.js.object_store import ObjectStore

from sparring.errors import ArtifactMissing, BadInput, DependencyDown, HashMismatch
from sparring.pace import Paced
from sparring.streams import ARTIFACTS

CHUNK = 1024 * 1024


class StoreUnavailable(DependencyDown):
    """The store did not answer: tried again."""


class ArtifactStore(Protocol):
    """Puts and gets by SHA-256."""

    async def put(self, path: Path, sha256: str, *, bytes_per_s: int = 0) -> str:
        """Stores the file's content and returns its URL; content that is there already is left alone.

        `bytes_per_s` is the most that may be sent; 0 is no limit.
        """
        ...

    async def get(self, url: str, to: Path) -> None:
        """Writes the content to `to`, whole or not at all. Raises ArtifactMissing or HashMismatch."""
        ...

    async def digest(self, url: str) -> tuple[str, int]:
        """SHA-256 and bytes, recomputed from what lies in the store."""
        ...

    async def delete(self, url: str) -> None:
        """Deletes the content; what is not there is deleted already."""
        ...


def sha256_of(path: Path) -> tuple[str, int]:
    """The file's SHA-256 in lower-case hex, and its bytes."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


class _Digest:
    """A file object that keeps nothing but the hash."""

    def __init__(self) -> None:
        self._hash, self.bytes = hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.bytes += len(data)
        return len(data)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def _drafted(to: Path) -> Iterator[BinaryIO]:
    """A file that appears whole: written aside, synced, renamed."""
    to.parent.mkdir(parents=True, exist_ok=True)
    draft = to.with_name(f".{to.name}.{uuid.uuid4().hex[:8]}")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, to)
    finally:
        draft.unlink(missing_ok=True)


def _named(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2]


class JetStreamStore:
    """The object store `ARTIFACTS` of the NATS server: `nats://ARTIFACTS/<sha256>`."""

    def __init__(self, js: JetStreamContext, bucket: str = ARTIFACTS) -> None:
        self._js, self._bucket = js, bucket
        self._store: ObjectStore | None = None

    async def _objects(self) -> ObjectStore:
        if self._store is None:
            self._store = await self._js.object_store(self._bucket)
        return self._store

    async def put(self, path: Path, sha256: str, *, bytes_per_s: int = 0) -> str:
        url = f"nats://{self._bucket}/{sha256}"
        try:
            objects = await self._objects()
            try:
                known = await objects.get_info(sha256)
                if known.size == path.stat().st_size:
                    return url
            except (NotFoundError, ObjectNotFoundError):
                known = None
            with path.open("rb") as file:
                await objects.put(sha256, Paced(file, bytes_per_s))  # type: ignore[arg-type]
        except (nats.errors.Error, JetStreamError, TimeoutError) as error:
            raise StoreUnavailable(f"{url}: {error!r}") from error
        return url

    async def get(self, url: str, to: Path) -> None:
        sha256 = _named(url)
        try:
            with _drafted(to) as file:
                # into memory it would copy quadratically
                await (await self._objects()).get(sha256, writeinto=file)  # type: ignore[arg-type]
                file.flush()
                found, _ = await asyncio.to_thread(sha256_of, Path(file.name))
                if found != sha256:
                    raise HashMismatch(f"{url} holds {found}")
        except (NotFoundError, ObjectNotFoundError) as error:
            raise ArtifactMissing(f"{url} is not in the store") from error
        except (nats.errors.Error, JetStreamError, TimeoutError) as error:
            raise StoreUnavailable(f"{url}: {error!r}") from error

    async def digest(self, url: str) -> tuple[str, int]:
        sink = _Digest()
        try:
            await (await self._objects()).get(_named(url), writeinto=sink)  # type: ignore[arg-type]
        except (NotFoundError, ObjectNotFoundError) as error:
            raise ArtifactMissing(f"{url} is not in the store") from error
        except (nats.errors.Error, JetStreamError, TimeoutError) as error:
            raise StoreUnavailable(f"{url}: {error!r}") from error
        return sink.sha256, sink.bytes

    async def delete(self, url: str) -> None:
        try:
            await (await self._objects()).delete(_named(url))
        except (NotFoundError, ObjectNotFoundError):
            return
        except (nats.errors.Error, JetStreamError, TimeoutError) as error:
            raise StoreUnavailable(f"{url}: {error!r}") from error


class FolderStore:
    """A folder that all nodes can reach: `file:///folder/<sha256>`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, url: str) -> Path:
        return self._folder / _named(url)

    async def put(self, path: Path, sha256: str, *, bytes_per_s: int = 0) -> str:
        target = self._folder / sha256
        if not target.exists():
            await asyncio.to_thread(copied, path, target, bytes_per_s)
        return f"file://{target}"

    async def get(self, url: str, to: Path) -> None:
        source = self._path(url)
        if not source.exists():
            raise ArtifactMissing(f"{url} is not in the store")
        found, _ = await asyncio.to_thread(sha256_of, source)
        if found != source.name:
            raise HashMismatch(f"{url} holds {found}")
        await asyncio.to_thread(copied, source, to)

    async def digest(self, url: str) -> tuple[str, int]:
        source = self._path(url)
        if not source.exists():
            raise ArtifactMissing(f"{url} is not in the store")
        return await asyncio.to_thread(sha256_of, source)

    async def delete(self, url: str) -> None:
        self._path(url).unlink(missing_ok=True)


def copied(source: Path, target: Path, bytes_per_s: int = 0) -> None:
    """Copies a file, whole or not at all. Blocks; for threads."""
    with source.open("rb") as read, _drafted(target) as write:
        # in steps of a tenth of a second at most: a slow link stays even
        step = min(CHUNK, max(4096, bytes_per_s // 10)) if bytes_per_s else CHUNK
        shutil.copyfileobj(Paced(read, bytes_per_s), write, step)


async def open_store(spec: str, js: JetStreamContext) -> ArtifactStore:
    """`nats://ARTIFACTS` or `file:///folder`. Raises BadInput for a home that this build does not know."""
    if spec.startswith("nats://"):
        return JetStreamStore(js, _named(spec) or ARTIFACTS)
    if spec.startswith("file://"):
        folder = Path(spec.removeprefix("file://"))
        if not folder.is_absolute():
            raise BadInput(f"artifacts = {spec!r}: file URLs are absolute, like file:///srv/artifacts")
        return FolderStore(folder)
    raise BadInput(f"artifacts = {spec!r} is no home for artifacts; use nats://ARTIFACTS or file:///folder")
