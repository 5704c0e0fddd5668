"""Reading a file no faster than a rate."""

from __future__ import annotations

import threading
import time
from typing import BinaryIO


class CutShort(Exception):
    """Whoever reads is to read no further."""


class Paced:
    """A file whose reads sleep, in the thread that reads, so that the average stays below the rate; 0 is no limit.

    Once it is `cut` every read, also one that sleeps, raises CutShort.
    """

    def __init__(self, file: BinaryIO, bytes_per_s: int) -> None:
        self._file, self._rate = file, bytes_per_s
        self._began, self._bytes = time.monotonic(), 0
        self._cut = threading.Event()

    def cut(self) -> None:
        self._cut.set()

    def readinto(self, buffer: bytearray) -> int:
        """Fills the buffer from the file; returns the bytes, 0 at its end."""
        count = int(self._file.readinto(buffer))  # type: ignore[attr-defined]
        self._wait(count)
        return count

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._wait(len(data))
        return data

    def _wait(self, count: int) -> None:
        self._bytes += count
        if self._rate > 0:
            ahead = self._bytes / self._rate - (time.monotonic() - self._began)
            if ahead > 0:
                self._cut.wait(ahead)
        if self._cut.is_set():
            raise CutShort
