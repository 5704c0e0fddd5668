"""Each finding of the doctor, made to appear on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.js import api

from sparring import __version__, clock
from sparring.catalogue import services
from sparring.contracts import fingerprint
from sparring.contracts.readings import Heartbeat, Resources, ServiceBeat
from sparring.doctor import Examination, Finding, examine, exit_code
from sparring.doctor import server as checks
from sparring.log.interface import Expect, Outgoing
from sparring.log.jetstream import JetStreamLog
from sparring.server import EmbeddedServer
from sparring.streams import COMMANDS, EVENTS
from sparring.testing import nats_server
from sparring.topology import declare_durable, declare_topology

GIB = 2**30


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "STILL_S", 0.05)


def beat(service: str, replica: str = "0", **more: object) -> ServiceBeat:
    values = {
        "service": service, "replica": replica, "build": __version__, "contracts": fingerprint(), "leader": True,
        "position": 0, "log_end": 0, "handled": 0, "failed": 0, "loop_lag_s": 0.0, "up_s": 1.0, "at": clock.now(),
    }  # fmt: skip
    return ServiceBeat.model_validate(values | more)


def node(**more: object) -> Heartbeat:
    resources = Resources(cores=2, cpu_share=0, foreign_cpu_share=0, memory_total_bytes=GIB, memory_available_bytes=GIB,
                          disk_free_bytes=90 * GIB, disk_total_bytes=100 * GIB)  # fmt: skip
    values = {
        "node": "n1",
        "boot": "b",
        "build": __version__,
        "contracts": fingerprint(),
        "resources": resources,
        "at": clock.now(),
    }
    return Heartbeat.model_validate(values | more)


async def say(nc: Client, one: ServiceBeat | Heartbeat) -> None:
    name = f"svc-{one.service}-{one.replica}" if isinstance(one, ServiceBeat) else one.node
    await nc.jetstream().publish(f"tel.{name}.heartbeat", one.model_dump_json().encode())


async def well(nc: Client) -> None:
    """A server as it is when everything runs: consumers declared, every service and a node beating."""
    for service in services():
        for durable in service.durables():
            await declare_durable(nc.jetstream(), durable)
        await say(nc, beat(service.name))
    await say(nc, node())


async def found(nc: Client, **more: object) -> list[Finding]:
    return await examine(Examination(nc, timeout_s=1), **more)  # type: ignore[arg-type]


def says(findings: Sequence[Finding], about: str, text: str) -> bool:
    return any(one.about == about and text in one.text and one.remedy for one in findings)


async def test_a_healthy_cluster_has_no_findings(nc: Client) -> None:
    await well(nc)
    assert await found(nc, log=True) == []


async def test_what_is_missing_is_found(nc: Client) -> None:
    await nc.jetstream().delete_stream("KV_LEASES")
    findings = await found(nc)
    assert says(findings, "bucket KV_LEASES", "is missing")
    assert says(findings, "consumer sync", "is missing")
    assert says(findings, "service sync", "does not beat")
    assert exit_code(findings) == 2


async def test_drift_and_strangers_are_found(nc: Client) -> None:
    await well(nc)
    js = nc.jetstream()
    info = await js.stream_info(COMMANDS)
    await js.update_stream(replace_config(info.config, max_age=600.0))
    await js.add_consumer(COMMANDS, replace_config((await js.consumer_info(COMMANDS, "sync")).config, ack_wait=5.0))
    await js.add_stream(name="MINE", subjects=["mine"])
    await js.add_consumer(
        EVENTS, api.ConsumerConfig(durable_name="stray", filter_subject="evt.sync.batch.*.GameRecorded")
    )
    findings = await found(nc)
    assert says(findings, "stream COMMANDS", "max_age is 600.0 on the server")
    assert says(findings, "consumer sync on COMMANDS", "ack_wait is 5.0 on the server")
    assert says(findings, "stream MINE", "is not declared")
    assert says(findings, "consumer stray", "on EVENTS is declared by nobody")
    assert says(findings, "consumer stray", "matches no contract: it hears nothing")
    assert exit_code(findings) == 1


def replace_config(config: Any, **more: object) -> Any:
    return replace(config, **more)


async def test_a_consumer_that_nobody_pulls_from_is_found(nc: Client) -> None:
    await well(nc)
    js = nc.jetstream()
    for _ in range(3):
        await js.publish("cmd.sync.batch.b.RecordGames", b"{}")
    pull = await js.pull_subscribe_bind("sync", COMMANDS)
    await pull.fetch(1)
    assert says(await found(nc), "consumer sync", "1 deliveries and 2 messages wait, and nobody pulls")
    # somebody who pulls is not stalled, however much waits
    waiting = asyncio.create_task(pull.fetch(10, timeout=30))
    await asyncio.sleep(0)
    await pull.fetch(2)
    assert not says(await found(nc), "consumer sync", "nobody pulls")
    waiting.cancel()


async def test_a_consumer_that_lags_is_found(nc: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    await well(nc)
    monkeypatch.setattr(checks, "LAGGING", 2)
    for _ in range(3):
        await nc.jetstream().publish("cmd.sync.batch.b.RecordGames", b"{}")
    assert says(await found(nc), "consumer sync", "3 messages behind")


async def test_services_that_differ_are_found(nc: Client) -> None:
    await well(nc)
    await say(nc, beat("sync", build="0.0.9", contracts="older", position=0, loop_lag_s=3.0, stuck="NewerVersion: v9"))
    await say(nc, beat("sync", "1", settings_hash="other", at=clock.now() + timedelta(seconds=40)))
    await say(nc, beat("pipeline", leader=False))
    findings = await found(nc)
    assert says(findings, "builds", "0.0.9: sync")
    assert says(findings, "service sync", "knows other messages")
    assert says(findings, "service sync", "different settings")
    assert says(findings, "service sync", "0 and 1 say that they lead")
    assert says(findings, "service sync/0", "stood still for 3.0 s")
    assert says(findings, "service sync/0", "stands still: NewerVersion: v9")
    assert says(findings, "service sync/1", "differ by +40.0 s")
    assert says(findings, "service pipeline", "none of 1 replicas leads")


async def test_nodes_in_trouble_are_found(nc: Client) -> None:
    await well(nc)
    poor = node().resources.model_copy(update={"disk_free_bytes": GIB})
    await say(nc, node(contracts="older", resources=poor, at=clock.now() - timedelta(seconds=9)))
    findings = await found(nc)
    assert says(findings, "node n1", "its agent knows other messages")
    assert says(findings, "node n1", "1.0 GiB of disk left")
    assert says(findings, "node n1", "differ by -9.0 s")


async def test_a_service_far_behind_is_found(nc: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    await well(nc)
    monkeypatch.setattr("sparring.doctor.processes.MOST_BEHIND", 0)
    subject = "evt.ext-x.a.b.C"
    await JetStreamLog(nc).append([Outgoing(subject, {}, b"{}", Expect("evt.ext-x.a.b.>", 0))], "b")
    assert says(await found(nc), "service sync/0", "has read to 0 of 1")


async def test_the_log_is_examined_on_demand(nc: Client) -> None:
    await well(nc)
    # past the log's own append, as a stranger with the right to publish would
    await nc.jetstream().publish("evt.sync.batch.b.GamesRecorded", b"{}")
    await nc.jetstream().publish(
        "evt.sync.batch.c.GamesRecorded", b"{}", headers={"ce-id": "c", "ce-type": "GamesRecorded"}
    )
    findings = await found(nc, log=True)
    assert says(
        findings,
        "log",
        "AppendsAreGuarded: 1: evt.sync.batch.b.GamesRecorded was appended without an expected sequence",
    )
    assert says(findings, "log", "IsAFact: 1: evt.sync.batch.b.GamesRecorded was published past the services")
    assert says(findings, "log", "Decodes: 2: GamesRecorded.batch")
    assert exit_code(findings) == 2


async def test_storage_near_its_limit_is_found() -> None:
    with nats_server() as server:
        assert server.address is not None
        nc = await nats.connect(server.address.url)
        await declare_topology(nc)
        js = nc.jetstream()
        usage = {"jsz": {"storage": 97, "config": {"max_storage": 100}}, "varz": {"slow_consumers": 3}}
        texts = [one.text async for one in checks.storage(js, usage)]
        assert texts == ["0 of 0 MiB are used", "3 slow consumers were cut off since its start"]
        await js.add_stream(name="SMALL", subjects=["small"], max_msgs=10, discard=api.DiscardPolicy.NEW)
        for _ in range(9):
            await js.publish("small", b"")
        assert [one.text for one in checks._full(await js.stream_info("SMALL"))] == ["9 of 10 messages"]
        look = Examination(nc, server.address.monitoring)
        assert not [one for one in await examine(look) if one.about.startswith("storage")]
        await nc.close()


async def test_a_log_that_fills_the_servers_memory_is_found(nc: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    await well(nc)
    await JetStreamLog(nc).append([Outgoing("evt.ext-a.b.c.D", {}, b"{}", Expect("evt.ext-a.b.c.>", 0))], "")
    assert await found(nc) == []
    monkeypatch.setattr(checks, "MANY_FACTS", 1)
    assert says(await found(nc), "stream EVENTS", "of the server's memory")


async def test_a_server_that_takes_only_small_messages_is_found(tmp_path) -> None:  # type: ignore[no-untyped-def]
    server = EmbeddedServer(tmp_path, more="max_payload: 1MB")
    try:
        nc = await nats.connect(server.start().url)
        await declare_topology(nc)
        assert says(await found(nc), "server", "at most 1,048,576 bytes")
        await nc.close()
    finally:
        server.stop()


LOCKED = """
authorization {
  users = [
    {user: all, password: all}
    {user: few, password: few, permissions: {
      publish: {allow: ["$JS.API.DIRECT.GET.>", "$JS.API.STREAM.INFO.EVENTS"]}, subscribe: {allow: ["_INBOX.>"]}}}
  ]
}
"""


async def test_what_may_not_be_read_is_said_and_the_rest_is_examined(tmp_path) -> None:  # type: ignore[no-untyped-def]
    server = EmbeddedServer(tmp_path, more=LOCKED)
    address = server.start()
    refused: list[str] = []

    async def on_error(error: Exception) -> None:
        refused.append(str(error))

    try:
        owner = await nats.connect(address.url, user="all", password="all")
        await declare_topology(owner)
        await say(owner, beat("sync"))
        few = await nats.connect(address.url, user="few", password="few", error_cb=on_error)
        findings = await examine(Examination(few, refused=refused, timeout_s=0.5))
        assert says(findings, "streams", "was not examined: ") and says(findings, "consumers", "$js.api")
        assert says(findings, "service pipeline", "does not beat")
        assert not says(findings, "service sync", "does not beat")
        await few.close()
        await owner.close()
    finally:
        server.kill()
