"""A real nats-server per test: alone, or three of them as one cluster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from sparring.errors import LogUnavailable
from sparring.log import JetStreamLog
from sparring.server import EmbeddedServer, free_port
from sparring.testing.waiting import eventually
from sparring.topology import declare_topology


@contextmanager
def nats_server(folder: Path | None = None) -> Iterator[EmbeddedServer]:
    """`with nats_server() as server:` — `server.address.url` is where to connect; gone afterwards."""
    home = folder or Path(tempfile.mkdtemp(prefix="sparring-nats-"))
    server = EmbeddedServer(home)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        if folder is None:
            shutil.rmtree(home, ignore_errors=True)


@contextmanager
def nats_cluster(nodes: int = 3) -> Iterator[list[EmbeddedServer]]:
    """Servers that replicate: streams with that many replicas live on all of them."""
    home = Path(tempfile.mkdtemp(prefix="sparring-cluster-"))
    ports = [free_port() for _ in range(nodes)]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    servers = []
    for number, port in enumerate(ports):
        more = f'cluster {{ name: sparring, listen: "127.0.0.1:{port}", routes: [{routes}] }}'
        client = free_port()
        servers.append(EmbeddedServer(home / str(number), port=client, name=f"n{number}", more=more))
    try:
        _start_together(servers)
        yield servers
    finally:
        for server in servers:
            server.kill()
        shutil.rmtree(home, ignore_errors=True)


def _start_together(servers: list[EmbeddedServer]) -> None:
    # a member of a cluster is healthy only once the others are there
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(servers)) as pool:
        list(pool.map(lambda server: server.start(), servers))


async def declared(nc: Client, replicas: int) -> None:
    """The topology, once servers that just started can declare it and read from the log."""

    async def readable() -> bool:
        try:
            await declare_topology(nc, replicas=replicas)
            await JetStreamLog(nc).get(1)
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError, LogUnavailable) as error:
            # a cluster elects its leaders first, and serves reads some time after
            raise AssertionError(repr(error)) from error
        return True

    _: bool = await eventually(readable, within_s=30, every_s=0.2)
