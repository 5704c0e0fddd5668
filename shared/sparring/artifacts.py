"""Files by their content: a store with two homes. Events carry the reference, never the blob."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import ObjectInfo
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError, ObjectNotFoundError
from nats.js.object_store import ObjectStore

from sparring import clock
from sparring.errors import ArtifactMissing, BadInput, DependencyDown, HashMismatch
from sparring.pace import Paced
from sparring.streams import ARTIFACTS

CHUNK = 1024 * 1024
# nats-py's list of a bucket waits without an end for what a broken connection swallowed
LISTED_S = 120.0
# a chunk is at most 128 KiB: a link that carries none in a minute carries nothing
SILENT_S = 60.0
# a message that is on its way is waited for, and what was sent is purged
TAKEN_BACK_S = 15.0
# the folder may hold others' hidden files
DRAFT = re.compile(r"\.[0-9a-f]{64}\.[0-9a-f]{8}")


class StoreUnavailable(DependencyDown):
    """The store did not answer: tried again."""


class ArtifactStore(Protocol):
    """Puts and gets by SHA-256."""

    async def put(self, path: Path, sha256: str, *, bytes_per_s: int = 0) -> str:
        """Stores the file's content and returns its URL; content that lies there whole is left alone.

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

    async def sweep(self, older_than: timedelta) -> int:
        """Deletes what uploads that were cut short left, unless something came within that time; returns how many."""
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


async def _whole(store: ArtifactStore, url: str) -> bool:
    """Whether what lies there is what its name says: what arrived broken is not left alone when it is brought again."""
    try:
        return (await store.digest(url))[0] == _named(url)
    except (ArtifactMissing, StoreUnavailable):
        return False


class JetStreamStore:
    """The object store `ARTIFACTS` of the NATS server: `nats://ARTIFACTS/<sha256>`."""

    def __init__(self, js: JetStreamContext, bucket: str = ARTIFACTS, *, silent_s: float = SILENT_S) -> None:
        self._js, self._bucket, self._stream, self._silent_s = js, bucket, f"OBJ_{bucket}", silent_s
        self._store: ObjectStore | None = None

    async def _objects(self) -> ObjectStore:
        if self._store is None:
            self._store = await self._js.object_store(self._bucket)
        return self._store

    async def put(self, path: Path, sha256: str, *, bytes_per_s: int = 0) -> str:
        url = f"nats://{self._bucket}/{sha256}"
        if await _whole(self, url):
            return url
        with self._answering(url):
            objects = await self._objects()
            with path.open("rb") as file:
                await self._put(objects, sha256, Paced(file, bytes_per_s))
        return url

    @staticmethod
    async def _put(objects: ObjectStore, sha256: str, file: Paced) -> None:
        """One that is cancelled takes back what it had sent: nats-py does that for ordinary exceptions only."""
        putting = asyncio.create_task(objects.put(sha256, file))  # type: ignore[arg-type]
        try:
            await asyncio.shield(putting)
        finally:
            if not putting.done():
                file.cut()
                putting.add_done_callback(_heard)
                await asyncio.wait((putting,), timeout=TAKEN_BACK_S)

    async def get(self, url: str, to: Path) -> None:
        sha256 = _named(url)
        with self._answering(url), self._there(url), _drafted(to) as file:
            # into memory it would copy quadratically
            await self._read(url, file)
            file.flush()
            found, _ = await asyncio.to_thread(sha256_of, Path(file.name))
            if found != sha256:
                raise HashMismatch(f"{url} holds {found}")

    async def digest(self, url: str) -> tuple[str, int]:
        sink = _Digest()
        with self._answering(url), self._there(url):
            await self._read(url, sink)
        return sink.sha256, sink.bytes

    async def _read(self, url: str, sink: Any) -> None:
        """The content's chunks in their order. Raises StoreUnavailable when nothing comes: nats-py's own `get` waits for
        chunks that are gone for ever, and cancelled it leaves its consumer behind."""
        info = await (await self._objects()).get_info(_named(url))
        if not info.size:
            return
        subject = f"$O.{self._bucket}.C.{info.nuid}"
        chunks = await self._js.subscribe(subject, stream=self._stream, ordered_consumer=True)
        try:
            more = True
            while more:
                message = await chunks.next_msg(timeout=self._silent_s)
                await asyncio.to_thread(sink.write, message.data)
                more = message.metadata.num_pending > 0
        except nats.errors.TimeoutError as error:
            gone = f"{url}: nothing came for {self._silent_s:g} s; part of it may be gone"
            raise StoreUnavailable(gone) from error
        finally:
            with suppress(nats.errors.Error):
                await chunks.unsubscribe()

    async def delete(self, url: str) -> None:
        name = _named(url)
        meta = self._meta(name)
        with self._answering(url):
            with suppress(NotFoundError, ObjectNotFoundError):
                # first the tombstone: nobody may find a name whose content is half gone
                await (await self._objects()).delete(name)
            # there may be one that was cut short after its tombstone
            try:
                last = await self._js.get_last_msg(self._stream, meta)
            except NotFoundError:
                return
            known = json.loads(last.data or b"{}")
            if known.get("deleted"):
                await self._purge(known["nuid"])
                # last the tombstone itself, which costs the server memory for ever; not what was put meanwhile
                await self._js.purge_stream(self._stream, seq=(last.seq or 0) + 1, subject=meta)

    async def sweep(self, older_than: timedelta) -> int:
        chunks, swept = f"$O.{self._bucket}.C.", 0
        with self._answering(f"nats://{self._bucket}"):
            objects = await self._objects()
            sent = {one.removeprefix(chunks) for one in await self._subjects(f"{chunks}>")}
            named = await self._subjects(f"$O.{self._bucket}.M.>")
            # afterwards: what was finished meanwhile has its name by now
            found: list[ObjectInfo] = []
            with suppress(NotFoundError):
                async with asyncio.timeout(LISTED_S):
                    found = await objects.list()
            if named - {self._meta(one.name) for one in found}:
                # a list that lacks a name would give away what the name leads to
                return 0
            for nuid in sent - {one.nuid for one in found}:
                last = await self._js.get_last_msg(self._stream, chunks + nuid)
                if last.time is not None and clock.now() - last.time >= older_than:
                    await self._purge(nuid)
                    swept += 1
        return swept

    async def _subjects(self, pattern: str) -> set[str]:
        info = await self._js.stream_info(self._stream, subjects_filter=pattern)
        return set(info.state.subjects or {})

    def _meta(self, name: str) -> str:
        """The subject on which an object's name leads to its chunks."""
        return f"$O.{self._bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"

    async def _purge(self, nuid: str) -> None:
        await self._js.purge_stream(self._stream, subject=f"$O.{self._bucket}.C.{nuid}")

    @contextmanager
    def _there(self, url: str) -> Iterator[None]:
        try:
            yield
        except (NotFoundError, ObjectNotFoundError) as error:
            raise ArtifactMissing(f"{url} is not in the store") from error

    @contextmanager
    def _answering(self, url: str) -> Iterator[None]:
        try:
            yield
        except (nats.errors.Error, JetStreamError, TimeoutError) as error:
            raise StoreUnavailable(f"{url}: {error!r}") from error


def _heard(putting: asyncio.Task[ObjectInfo]) -> None:
    """What is cut short may fail as it likes."""
    if not putting.cancelled():
        putting.exception()


class FolderStore:
    """A folder that all nodes can reach: `file:///folder/<sha256>`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, url: str) -> Path:
        return self._folder / _named(url)

    async def put(self, path: Path, sha256: str, *, bytes_per_s: int = 0) -> str:
        target = self._folder / sha256
        url = f"file://{target}"
        if not await _whole(self, url):
            await asyncio.to_thread(copied, path, target, bytes_per_s)
        return url

    async def get(self, url: str, to: Path) -> None:
        source, (found, _) = self._path(url), await self.digest(url)
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

    async def sweep(self, older_than: timedelta) -> int:
        return await asyncio.to_thread(self._sweep, older_than.total_seconds())

    def _sweep(self, older_than_s: float) -> int:
        swept, before = 0, time.time() - older_than_s
        for draft in self._folder.glob(".*"):
            with suppress(FileNotFoundError):
                if DRAFT.fullmatch(draft.name) and draft.stat().st_mtime <= before:
                    draft.unlink()
                    swept += 1
        return swept


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
