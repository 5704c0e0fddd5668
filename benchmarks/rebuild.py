"""Rebuilding the largest read model, and the start of a reader, with a million facts.

The log holds batches of games on their way: recorded, granted, stored, admitted (four facts each, with the headers that
the product writes). The peers in the same run: a raw socket reader that pulls the stream and looks at nothing but the
protocol's lines, and DuckDB alone, fed with rows that are already in memory. `SPARRING_BENCH_FACTS` sets another count.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
import time
from pathlib import Path

import nats
from filling import fill
from nats.aio.client import Client
from rows import Row, at_most, plain, ratio_of

from sparring.catalogue import services
from sparring.folding import fold
from sparring.log.jetstream import JetStreamLog
from sparring.place import Place
from sparring.projection import Projection
from sparring.reader import Reader
from sparring.streams import EVENTS
from sparring.testing import nats_server
from sparring.testing.copies import keep_copies
from sparring.topology import declare_topology
from sync.read_models.custody import CUSTODY

FACTS = int(os.environ.get("SPARRING_BENCH_FACTS", "1000000"))


def raw_reader(url: str, facts: int) -> float:
    """Seconds in which a plain socket pulls all messages and looks only at the protocol's lines."""
    host, port = url.removeprefix("nats://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB in 1\r\n')
        create = {
            "stream_name": EVENTS,
            "config": {"deliver_policy": "all", "ack_policy": "none", "mem_storage": True, "name": "rawbench"},
        }
        body = json.dumps(create).encode()
        line.sendall(b"PUB $JS.API.CONSUMER.CREATE.EVENTS.rawbench in %d\r\n%b\r\n" % (len(body), body))
        time.sleep(0.5)
        began = time.perf_counter()
        ask = json.dumps({"batch": facts, "expires": int(120e9)}).encode()
        line.sendall(b"PUB $JS.API.CONSUMER.MSG.NEXT.EVENTS.rawbench in %d\r\n%b\r\n" % (len(ask), ask))
        seen, rest = 0, b""
        while seen < facts:
            rest += line.recv(1 << 20)
            place, end = 0, len(rest)
            while True:
                stop = rest.find(b"\r\n", place)
                if stop < 0:
                    break
                head = rest[place:stop]
                if not head.startswith((b"HMSG", b"MSG")):
                    place = stop + 2
                    continue
                after = stop + 4 + int(head[head.rfind(b" ") + 1 :])
                if after > end:
                    break
                seen += head.startswith(b"HMSG evt")
                place = after
            rest = rest[place:]
        return time.perf_counter() - began


async def rebuilt(nc: Client, file: Path, end: int) -> float:
    """Seconds from an empty file to the last fact, by the way that `spar rebuild` takes."""
    projection, began = Projection(file, [CUSTODY]), time.perf_counter()
    await fold(JetStreamLog(nc), [(projection, end)])
    seconds = time.perf_counter() - began
    found = projection.con.execute(
        "select count(*), sum(games)::bigint from sync_batches where state = 'admitted'"
    ).fetchone()
    assert found == (FACTS // 4, FACTS // 4 * 30), found
    projection.close()
    return seconds


async def opened(url: str) -> float:
    began = time.perf_counter()
    async with await Reader.open(Place(url)) as reader:
        assert reader.projection.position >= FACTS
    return time.perf_counter() - began


async def _measure(url: str, folder: Path) -> list[Row]:
    nc = await nats.connect(url)
    await declare_topology(nc)
    began = time.perf_counter()
    await fill(nc, 0, FACTS)
    filled = time.perf_counter() - began
    end = await JetStreamLog(nc).end()
    info = await nc.jetstream().stream_info(EVENTS)
    raw = await asyncio.to_thread(raw_reader, url, end)
    seconds = await rebuilt(nc, folder / "custody.duckdb", end)
    os.environ["XDG_CACHE_HOME"] = str(folder)
    without, with_snapshot = await opened(url), await opened(url)
    # a little before the end: the next copies are due after 50,000 facts
    await keep_copies(nc, folder, dict.fromkeys((one.name for one in services()), end - 25_000))
    os.environ["XDG_CACHE_HOME"] = str(folder / "fresh")
    with_copies = await opened(url)
    await nc.close()
    words = f"{FACTS:,} facts"
    return [
        ratio_of(
            f"{words} into the custody tables", seconds, "s", raw, "a raw socket reader that does nothing", most=1.25
        ),
        plain("a reader's first start where no service keeps copies", without, "s"),
        ratio_of("a reader's first start from the services' copies", with_copies, "s", without, "without copies"),
        at_most("a reader's start with a snapshot", with_snapshot, "s", 2.0),
        plain("bytes of disk per fact", info.state.bytes / end, "B"),
        plain("filling, in atomic batches of 1,000", end / filled, "facts/s"),
    ]


def rows() -> list[Row]:
    with nats_server() as server, tempfile.TemporaryDirectory() as folder:
        assert server.address is not None
        return asyncio.run(_measure(server.address.url, Path(folder)))
