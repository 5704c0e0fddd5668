"""What every test may ask for: a real server of its own, or three of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import nats
import pytest
import pytest_asyncio
from hypothesis import settings
from nats.aio.client import Client

from sparring.server import EmbeddedServer
from sparring.testing import declared, nats_cluster, nats_server
from sparring.topology import declare_topology

# how long an example takes says how busy the machine is, not whether the rule holds
settings.register_profile("sparring", deadline=None)
settings.load_profile("sparring")


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with nats_server() as one:
        yield one


@pytest.fixture
def url(server: EmbeddedServer) -> str:
    """Where a fresh server listens."""
    assert server.address is not None
    return server.address.url


@pytest_asyncio.fixture
async def nc(server: EmbeddedServer) -> AsyncIterator[Client]:
    """A connection to a fresh server that has the whole topology."""
    assert server.address is not None
    client = await nats.connect(server.address.url)
    await declare_topology(client)
    yield client
    await client.close()


@pytest.fixture
def cluster() -> Iterator[list[EmbeddedServer]]:
    with nats_cluster() as three:
        yield three


@pytest_asyncio.fixture
async def cluster_nc(cluster: list[EmbeddedServer]) -> AsyncIterator[Client]:
    """A connection to a three-node cluster whose streams have three replicas."""
    client = await nats.connect([one.address.url for one in cluster if one.address], max_reconnect_attempts=-1)
    await declared(client, 3)
    yield client
    await client.close()
