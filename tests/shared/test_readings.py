"""What processes hear of each other: only what they ask for, decoded only when somebody looks."""

from __future__ import annotations

from nats.aio.client import Client

from sparring.contracts.readings import ServiceBeat
from sparring.readings import Readings
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
