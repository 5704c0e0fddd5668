"""Nodes that are heard: their beats without an agent behind them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import nats.errors
from nats.aio.client import Client

from sparring.contracts.readings import Heartbeat, Resources, RunningTask
from sparring.ending import ended
from sparring.subjects import token

GIB = 2**30
ROOM = Resources(cores=8, cpu_share=0.1, foreign_cpu_share=0.1, memory_total_bytes=32 * GIB, memory_available_bytes=24 * GIB,
                 disk_free_bytes=100 * GIB, disk_total_bytes=200 * GIB)  # fmt: skip
Running = dict[str, set[tuple[str, int]]]


@contextlib.asynccontextmanager
async def beating(nc: Client, *nodes: str, boot: str = "b") -> AsyncIterator[Running]:
    """The nodes beat twice a second and have room. Yields which tasks and attempts each says it runs, to be changed."""
    running: Running = {node: set() for node in nodes}

    async def beat() -> None:
        while True:
            for node, tasks in running.items():
                listed = tuple(
                    RunningTask(task=task, attempt=n, kind="export", lane="hex", for_s=1) for task, n in tasks
                )
                said = Heartbeat(node=node, boot=boot, build="1", contracts="1", running=listed, resources=ROOM)
                # a server that is away hears nobody
                with contextlib.suppress(nats.errors.Error):
                    await nc.publish(f"tel.{token(node)}.heartbeat", said.model_dump_json().encode())
            await asyncio.sleep(0.5)

    task = asyncio.create_task(beat())
    try:
        yield running
    finally:
        await ended(task)
