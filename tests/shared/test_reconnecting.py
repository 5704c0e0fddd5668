"""What a service does once its server is there again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import nats
import nats.errors
import pytest

from sparring.connection import close
from sparring.errors import SparringError
from sparring.log import JetStreamLog
from sparring.server import EmbeddedServer, free_port
from sparring.streams import TELEMETRY
from sparring.testing import eventually
from sparring.testing.processes import Replica, app_of

BEATS = "tel.svc-training-slots-0.heartbeat"


async def test_after_the_server_was_started_anew_readings_are_kept_again(tmp_path: Path) -> None:
    """TELEMETRY lies in the server's memory: without it `spar` said of every service that it had not beaten."""
    server = EmbeddedServer(tmp_path / "nats", port=free_port())
    replica = Replica(app_of("training-slots"), server.start().url, tmp_path / "data")
    nc = await nats.connect(f"nats://127.0.0.1:{server.port}", max_reconnect_attempts=-1, reconnect_time_wait=0.2)

    async def kept() -> bool:
        try:
            return bool(await JetStreamLog(nc, stream=TELEMETRY).last_of_each(BEATS))
        except (SparringError, nats.errors.Error, TimeoutError, OSError):
            return False

    try:
        replica.start()
        await eventually(kept, within_s=60)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await eventually(kept, within_s=60, what="a beat is kept after the server's start")
    finally:
        replica.kill()
        await nc.close()
        server.kill()


@pytest.mark.parametrize("unsent", [0, 3])
async def test_whoever_ends_while_the_server_is_away_ends_well(server: EmbeddedServer, url: str, unsent: int) -> None:
    """An agent whose everything was on disk ended with exit code 1, in the words of asyncio."""

    async def quiet(_: Exception) -> None: ...

    nc = await nats.connect(url, max_reconnect_attempts=-1, error_cb=quiet)
    await asyncio.to_thread(server.kill)

    async def lost() -> bool:
        return not nc.is_connected

    await eventually(lost)
    for _ in range(unsent):
        await nc.publish("tel.svc-sync-0.heartbeat", b"{}")
    await close(nc)
    assert nc.is_closed
