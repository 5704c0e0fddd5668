"""What grows with the log: disk, the server's memory and the time of a start, at one and at ten million facts.

Batches of games from their record to their end (see `filling.py`): every fact has a subject of its own. The service is `sync`, whose tables
are the largest; it starts once with its own files and once on an empty disk, from the copy that the server keeps.
`SPARRING_BENCH_GROWTH` sets other counts, in thousands.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import nats
import psutil
from filling import TO_THE_END, fill
from nats.aio.client import Client
from rows import Row, at_most, plain

from sparring.copies import ask_subject
from sparring.server import EmbeddedServer, free_port
from sparring.streams import EVENTS
from sparring.testing import eventually, nats_server
from sparring.topology import declare_topology

COUNTS = [int(one) * 1_000 for one in os.environ.get("SPARRING_BENCH_GROWTH", "1000,10000").split(",")]


class Reading:
    """The service `sync` as a process, its imports included, and how far it has read."""

    def __init__(self, url: str, folder: Path) -> None:
        self.port, self.file = free_port(), folder / "sync.log"
        self.argv = ["--nats", url, "--data", str(folder), "--http", str(self.port)]
        self.process: subprocess.Popen[bytes] | None = None

    def _spawn(self) -> None:
        with self.file.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "sync", *self.argv], stdout=log, stderr=log)

    def _position(self) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=5) as answer:
                return int(json.load(answer)["position"])
        except OSError:
            return -1

    async def start(self, end: int, within_s: float) -> float:
        """Seconds from the start of the process until it is ready and has read up to `end`."""
        began = time.perf_counter()
        await asyncio.to_thread(self._spawn)

        async def there() -> bool:
            return await asyncio.to_thread(self._position) >= end

        await eventually(there, within_s=within_s, every_s=0.02, what=f"sync has read {end:,} facts")
        return time.perf_counter() - began

    async def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        await asyncio.to_thread(self.process.wait, 120)


def memory(server: EmbeddedServer) -> int:
    """Bytes of the server's resident memory."""
    assert server.process is not None
    return int(psutil.Process(server.process.pid).memory_info().rss)


async def copied_up_to(nc: Client, end: int) -> None:
    """Has the service keep copies until its tables, which follow its picture, have reached the end, too."""

    async def kept() -> bool:
        answer = await nc.request(ask_subject("sync", "0", "CopyTables"), b"", timeout=600)
        return int(json.loads(answer.data)["sequence"]) >= end

    await eventually(kept, within_s=600, every_s=1.0, what="the tables are copied")


async def at(count: int, nc: Client, server: EmbeddedServer, folder: Path, empty: int) -> list[Row]:
    """The rows of a log with that many facts; `empty` is what the server takes without any."""
    assert server.address is not None
    words = f"{count:,} facts"
    state = (await nc.jetstream().stream_info(EVENTS)).state
    grown = memory(server) - empty
    one = Reading(server.address.url, folder)
    # the first one reads what is new since the last size; the copies that the server keeps are made on the way
    read = await one.start(state.last_seq, 3600)
    await copied_up_to(nc, state.last_seq)
    await one.stop()
    own = await one.start(state.last_seq, 600)
    await one.stop()
    shutil.rmtree(folder / "sync")
    copied = await one.start(state.last_seq, 600)
    assert "began at a snapshot" in one.file.read_text()
    await one.stop()
    await asyncio.to_thread(server.kill)
    began = time.perf_counter()
    await asyncio.to_thread(server.start)
    again = time.perf_counter() - began
    return [
        plain(f"{words}: disk per fact", state.bytes / state.messages, "B"),
        plain(f"{words}: the server's memory per subject", grown / count, "B"),
        plain(f"{words}: the server's memory after a restart, per subject", (memory(server) - empty) / count, "B"),
        plain(f"{words}: the server's start after a kill", again, "s"),
        plain(f"{words}: reading what is new since the size before", read, "s"),
        at_most(f"{words}: start of a service with its own files", own, "s", 2.0),
        at_most(f"{words}: start on an empty disk, from the server's copy", copied, "s", 2.0),
    ]


async def _measure(server: EmbeddedServer, folder: Path) -> list[Row]:
    assert server.address is not None
    found, begin, empty = list[Row](), 0, memory(server)
    for count in COUNTS:
        # another connection for each size: the server was killed meanwhile
        nc = await nats.connect(server.address.url)
        await declare_topology(nc)
        await fill(nc, begin, count, TO_THE_END)
        fresh = await at(count, nc, server, folder, empty)
        # a size takes up to half an hour: what was seen is said at once
        print(*fresh, sep="\n", file=sys.stderr, flush=True)
        found += fresh
        begin = count
        await nc.close()
    return found


def rows() -> list[Row]:
    with nats_server() as server, tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(server, Path(folder)))
