"""A running agent, and what is left of it ended afterwards."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from agent_node import Node
from nats.aio.client import Client

from sparring.server import EmbeddedServer


@pytest_asyncio.fixture
async def idle(server: EmbeddedServer, nc: Client, tmp_path: Path) -> AsyncIterator[Node]:
    """A node whose agent is not started yet."""
    one = Node(server, tmp_path, nc)
    yield one
    if one.process is not None and one.process.poll() is None:
        one.process.kill()
        one.process.wait()


@pytest_asyncio.fixture
async def node(idle: Node) -> Node:
    idle.start()
    return idle
