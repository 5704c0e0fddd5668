"""What processes hear of each other: only what they ask for, decoded only when somebody looks."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from nats.aio.client import Client

from sparring.contracts.readings import ServiceBeat
from sparring.errors import LogUnavailable
from sparring.log.interface import Raw
from sparring.log.jetstream import JetStreamLog
from sparring.readings import Readings, stored
from sparring.streams import TELEMETRY
from sparring.testing import eventually

BEAT = ServiceBeat(service="sync", replica="0", build="1", contracts="c", leader=True, position=1, log_end=1, handled=0,
                   failed=0, loop_lag_s=0.0, up_s=1.0)  # fmt: skip


async def test_a_service_hears_only_the_readings_it_declares_and_a_view_decodes_when_asked(nc: Client) -> None:
    hearing, silent = Readings(), Readings()
    await hearing.listen(nc, ("tel.*.heartbeat",))
    await silent.listen(nc, ())
    await nc.publish("tel.svc-sync-0.heartbeat", BEAT.model_dump_json().encode())
    await nc.publish("tel.svc-sync-0.progress", b"{}")
    await eventually(lambda: "tel.svc-sync-0.heartbeat" in hearing.now())
    view = hearing.now()
    assert list(view) == ["tel.svc-sync-0.heartbeat"]
    assert view["tel.svc-sync-0.heartbeat"].data == BEAT
    assert len(silent.now()) == 0


async def test_a_reading_that_nobody_understands_is_counted_and_is_no_reading(nc: Client) -> None:
    readings = Readings()
    await readings.listen(nc, ("tel.*.heartbeat",))
    await nc.publish("tel.n1.heartbeat", b"not json")
    await nc.publish("tel.svc-sync-0.heartbeat", BEAT.model_dump_json().encode())
    await eventually(lambda: "tel.svc-sync-0.heartbeat" in readings.now())
    view = readings.now()
    assert view.get("tel.n1.heartbeat") is None
    assert [one.data for one in view.values()] == [BEAT]
    assert readings.broken == 1


async def test_ages_are_as_of_the_look(nc: Client) -> None:
    readings = Readings()
    await readings.listen(nc, ("tel.*.heartbeat",))
    await nc.publish("tel.svc-sync-0.heartbeat", BEAT.model_dump_json().encode())
    await eventually(lambda: len(readings.now()) == 1)
    view = readings.now()
    first = view["tel.svc-sync-0.heartbeat"].age_s
    assert view["tel.svc-sync-0.heartbeat"].age_s == first
    await eventually(lambda: readings.now()["tel.svc-sync-0.heartbeat"].age_s > first)


async def said_before(nc: Client) -> datetime:
    """A beat that the server has, and when the server's clock says it came."""
    await nc.publish("tel.svc-sync-0.heartbeat", BEAT.model_dump_json().encode())
    await eventually(lambda: stored(nc))
    return (await stored(nc))[0][2]


def at_the_server(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    async def told(_: JetStreamLog) -> datetime:
        return now

    monkeypatch.setattr(JetStreamLog, "now", told)


async def test_what_was_said_just_before_is_known_at_once_and_as_old_as_the_server_says(
    nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = await said_before(nc)
    assert timedelta() <= await JetStreamLog(nc, stream=TELEMETRY).now() - at < timedelta(seconds=30)
    at_the_server(monkeypatch, at + timedelta(seconds=20))
    readings, others = Readings(), Readings()
    await readings.listen(nc, ("tel.*.heartbeat",))
    await others.listen(nc, ("tel.*.progress",))
    known = readings.now()["tel.svc-sync-0.heartbeat"]
    assert known.data == BEAT and 20 <= known.age_s < 25
    assert len(others.now()) == 0


async def test_more_nodes_than_the_server_tells_of_at_once_are_all_known_at_once(nc: Client) -> None:
    """It refuses to give the last messages of more than 1,024 subjects; services and `spar` knew of none of them."""
    fleet = {f"tel.svc-sync-{number}.heartbeat" for number in range(1_500)}
    for body in (b"{}", BEAT.model_dump_json().encode()):
        for subject in sorted(fleet):
            await nc.publish(subject, body)
    await nc.publish("tel.svc-sync-0.progress", b"{}")
    log = JetStreamLog(nc, stream=TELEMETRY)

    async def kept() -> bool:
        return await log.end() == 3_001

    await eventually(kept)
    readings = Readings()
    await readings.listen(nc, ("tel.*.heartbeat",))
    assert set(readings.now()) == fleet
    assert {subject for subject, _, _ in await stored(nc)} == fleet
    assert [raw.sequence for raw in await log.last_of_each("tel.>")] == list(range(1_501, 3_002))


async def test_what_was_said_long_before_is_no_reading_of_now(nc: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    at = await said_before(nc)
    at_the_server(monkeypatch, at + timedelta(seconds=31))
    readings = Readings()
    await readings.listen(nc, ("tel.*.heartbeat",))
    assert len(readings.now()) == 0


async def test_a_process_listens_from_when_it_subscribed_and_not_from_its_start(
    nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It restores its pictures before: a node is not silent for as long as that took."""
    clock = time.monotonic()
    monkeypatch.setattr("sparring.readings.time", SimpleNamespace(monotonic=lambda: clock))
    readings = Readings()
    clock += 40
    await readings.listen(nc, ())
    watch = readings.watch(True)
    assert (watch.connected_s, watch.started_s) == (0.0, 0.0)


async def test_a_server_that_can_not_say_what_was_said_keeps_nobody_from_listening(
    nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuses(_: JetStreamLog, __: str) -> list[Raw]:
        raise LogUnavailable("no answer")

    monkeypatch.setattr(JetStreamLog, "last_of_each", refuses)
    readings = Readings()
    await readings.listen(nc, ("tel.*.heartbeat",))
    await nc.publish("tel.svc-sync-0.heartbeat", BEAT.model_dump_json().encode())
    await eventually(lambda: len(readings.now()) == 1)
