"""Real services around a real server, and the SDK beside them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from sparring.client import Client
from sparring.log import JetStreamLog
from sparring.server import EmbeddedServer
from sparring.testing import eventually
from sparring.testing.processes import Replica, app_of
from sparring.topology import declare_topology

FAST = {"SPARRING_TRAINING_SLOTS__LEASE_S": "6", "SPARRING_TRAINING_SLOTS__RENEW_S": "2",
        "SPARRING_SELFPLAY_ORCH__MOST_CPU": "1", "SPARRING_SELFPLAY_ORCH__MOST_MEMORY": "1"}  # fmt: skip
LANE = """
[[lane]]
name = "hex"
game = "hex"
enabled = false
[lane.commands]
selfplay = ["python", "-c", "pass", "{job}", "{out}"]
train = ["python", "-c", "pass", "{job}", "{out}"]
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches and outboxes of this test alone."""
    for name, folder in (("XDG_CACHE_HOME", "cache"), ("XDG_STATE_HOME", "state")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.delenv("SPARRING_DATA", raising=False)
    return tmp_path


@pytest.fixture
def url(server: EmbeddedServer, home: Path) -> str:
    assert server.address is not None
    return server.address.url


@pytest.fixture
def services(request: pytest.FixtureRequest, url: str, home: Path) -> Iterator[dict[str, Replica]]:
    """The services that the test's module names in SERVICES; killed at the end, which is faster than asking them."""
    names = request.module.SERVICES
    found = {name: Replica(app_of(name), url, home / "services", environ=FAST).start() for name in names}
    yield found
    for one in found.values():
        one.kill()


@pytest_asyncio.fixture
async def client(services: dict[str, Replica], url: str, home: Path) -> AsyncIterator[Client]:
    """An SDK client of a cluster whose services have all said under which settings they run, with a lane `hex`."""
    from sparring.contracts.pipeline import RegisterLane
    from sparring.lane_file import load_lanes

    async with Client(url) as one:

        async def adopted() -> bool:
            return await _settings(one) == len(services)

        await eventually(adopted, within_s=60, every_s=0.2)
        file = home / "lanes.toml"
        file.write_text(LANE)
        (spec,) = load_lanes(file)
        assert await one.ask(RegisterLane(lane="hex", spec=spec))
        yield one


async def _settings(client: Client) -> int:
    nc = await client._connected()
    await declare_topology(nc)
    found = [raw for raw in await JetStreamLog(nc).load("evt.>") if raw.subject.endswith(".SettingsAdopted")]
    return len({raw.subject for raw in found})


@pytest.fixture
def environ(home: Path) -> dict[str, str]:
    """For commands beside the cluster."""
    return dict(os.environ)
