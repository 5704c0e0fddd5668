"""A node's copies of artifacts by hash: whole or not there at all, the least recently used go first."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter
from pathlib import Path
from weakref import WeakValueDictionary

from sparring.artifacts import ArtifactStore, copied
from sparring.contracts.parts import Artifact
from sparring.streams import ARTIFACTS

LEAST_FREE_SHARE = 0.10


class Cache:
    """What is in use never goes. The folder is read once: afterwards making room costs as much as what has to go."""

    def __init__(self, folder: Path, store: ArtifactStore, max_bytes: int) -> None:
        self._folder, self._store, self._max_bytes = folder, store, max_bytes
        folder.mkdir(parents=True, exist_ok=True)
        for draft in folder.glob(".*"):
            # of a fetch that was killed
            draft.unlink()
        known = sorted((one.stat().st_atime, one.name, one.stat().st_size) for one in folder.iterdir()
                       if len(one.name) == 64)  # fmt: skip
        # the one that was used last is the last one
        self._sizes = {name: size for _, name, size in known}
        self._bytes = sum(self._sizes.values())
        self._in_use = Counter[str]()
        self._fetching: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def fetch(self, artifact: Artifact) -> Path:
        """The artifact's path here, fetched when it is not; stays until `release`."""
        sha256 = artifact.sha256
        path = self._folder / sha256
        self._in_use[sha256] += 1
        alone = self._fetching.setdefault(sha256, asyncio.Lock())
        try:
            async with alone:
                if not path.exists():
                    self._forget(sha256)
                    self._make_room(artifact.bytes)
                    await self._got(artifact, path)
            self._used(sha256, path)
        except BaseException:
            self.release(sha256)
            raise
        return path

    async def _got(self, artifact: Artifact, path: Path) -> None:
        # others that are fetched meanwhile see that this one will lie here
        self._bytes += artifact.bytes
        try:
            await self._store.get(artifact.url or f"nats://{ARTIFACTS}/{artifact.sha256}", path)
        finally:
            self._bytes -= artifact.bytes

    async def keep(self, path: Path, sha256: str) -> None:
        """Takes in a file that was made here."""
        target = self._folder / sha256
        if not target.exists():
            self._make_room(path.stat().st_size)
            await asyncio.to_thread(copied, path, target)
        self._used(sha256, target)

    def release(self, sha256: str) -> None:
        self._in_use[sha256] -= 1
        if self._in_use[sha256] <= 0:
            del self._in_use[sha256]

    def _used(self, sha256: str, path: Path) -> None:
        self._forget(sha256)
        self._sizes[sha256] = size = path.stat().st_size
        self._bytes += size
        # the order outlives this process
        os.utime(path)

    def _forget(self, sha256: str) -> None:
        self._bytes -= self._sizes.pop(sha256, 0)

    def _make_room(self, wanted: int) -> None:
        disk = shutil.disk_usage(self._folder)
        least, free = LEAST_FREE_SHARE * disk.total, disk.free
        for name, size in list(self._sizes.items()) if self._full(wanted, free, least) else ():
            if not self._full(wanted, free, least):
                return
            if name not in self._in_use:
                (self._folder / name).unlink(missing_ok=True)
                self._forget(name)
                free += size

    def _full(self, wanted: int, free: float, least: float) -> bool:
        return self._bytes + wanted > self._max_bytes or free - wanted < least
