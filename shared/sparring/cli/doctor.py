"""`spar doctor`: the live system against the catalogue; every finding says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

import typer
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from sparring.catalogue import services
from sparring.cli.common import AsJson, Data, Nats, print_json
from sparring.contracts import fingerprint
from sparring.contracts.readings import Heartbeat, ServiceBeat
from sparring.hearing import heard, until
from sparring.invariants import AppendsAreGuarded, Watch
from sparring.place import find
from sparring.reader import Reader
from sparring.streams import STREAMS, TELEMETRY
from sparring.topology import durable_drift, stream_drift

MOST_SKEW_S = 2.0


@dataclass(frozen=True)
class Finding:
    """Something that differs from what it should be."""

    severity: Literal["note", "warning", "critical"]
    about: str
    text: str
    remedy: str


def doctor(
    nats: Nats = None,
    data: Data = None,
    log: Annotated[bool, typer.Option("--log", help="Check the invariants over the whole log, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Checks streams, consumers, services, nodes and clocks; exit code 1 when something is wrong."""

    async def run() -> list[Finding]:
        async with await Reader.open(find(nats, data)) as reader:
            found = [one async for one in _streams(reader.nc)]
            found += [one async for one in _consumers(reader.nc)]
            found += [one async for one in _processes(reader)]
            found += await _clock(reader.nc)
            return found + (await _invariants(reader) if log else [])

    found = asyncio.run(run())
    if as_json:
        print_json(None, findings=[asdict(one) for one in found], healthy=not found)
    else:
        for one in found:
            typer.echo(f"{one.severity:<8} {one.about}: {one.text}\n         → {one.remedy}")
        typer.echo(f"{len(found)} findings" if found else "all well: streams, consumers, services, nodes, clocks")
    raise typer.Exit(1 if any(one.severity != "note" for one in found) else 0)


async def _invariants(reader: Reader) -> list[Finding]:
    """What must hold over any log: no effect twice, limits kept, games conserved, every wait with a deadline."""
    remedy = "read around it with `spar events --since SEQ`; the fact's owner has a bug"
    watch, guards, end = Watch(), AppendsAreGuarded(), await reader.log.end()
    found: list[Finding] = []
    async for batch in until(reader.log, end):
        for raw in batch:
            texts = [f"{guards.name}: {text}" for text in guards.apply(raw)]
            one = heard(raw)
            texts += watch.apply(one) if one is not None else []
            found += [Finding("critical", "log", text, remedy) for text in texts]
    return found


async def _streams(nc: Client):  # type: ignore[no-untyped-def]
    js = nc.jetstream(timeout=5)
    for stream in STREAMS:
        try:
            info = await js.stream_info(stream.name)
        except NotFoundError:
            yield Finding(
                "critical", f"stream {stream.name}", "is missing", "start any service: it declares the topology"
            )
            continue
        for drift in stream_drift(stream, info.config):
            yield Finding(
                "warning", drift.where, str(drift), "set it back with `nats stream edit`, or declare the change"
            )


async def _consumers(nc: Client):  # type: ignore[no-untyped-def]
    js = nc.jetstream(timeout=5)
    for service in services():
        for durable in service.durables():
            try:
                info = await js.consumer_info(durable.stream, durable.name)
            except NotFoundError:
                yield Finding(
                    "warning", f"consumer {durable.name}", "is missing", f"start {service.name}: it declares it"
                )
                continue
            for drift in durable_drift(durable, info.config):
                yield Finding(
                    "warning", drift.where, str(drift), "renaming a durable is a migration; see infra/runbooks"
                )
            pending = info.num_ack_pending or 0
            if pending > durable.max_ack_pending // 2:
                yield Finding("critical", f"consumer {durable.name}", f"{pending} deliveries wait for an answer",
                              f"restart {service.name}; `spar dlq ls` shows what fails")  # fmt: skip
            if (info.num_pending or 0) > 1000:
                yield Finding("warning", f"consumer {durable.name}", f"{info.num_pending} messages behind",
                              f"start another replica of {service.name}")  # fmt: skip


async def _processes(reader: Reader):  # type: ignore[no-untyped-def]
    beats = [one for one in (await reader.readings()).values() if isinstance(one.data, ServiceBeat)]
    alive = {one.data.service for one in beats if one.age_s < 15}
    for service in services():
        if service.name not in alive:
            yield Finding(
                "critical", service.name, "does not beat", f"start it: uv run --package {service.name} {service.name}"
            )
    for one in beats:
        if one.age_s < 15 and one.data.contracts != fingerprint():
            yield Finding(
                "warning", one.data.service, "knows other messages than this build", "deploy one build everywhere"
            )
        if one.age_s < 15 and one.data.loop_lag_s > 1:
            yield Finding("warning", one.data.service, f"its event loop stood still for {one.data.loop_lag_s:.1f} s",
                          "give the machine more cores, or move agents off it")  # fmt: skip
    for one in (await reader.readings()).values():
        if isinstance(one.data, Heartbeat) and one.age_s < 15:
            for finding in _node(one.data):
                yield finding


def _node(beat: Heartbeat) -> Iterator[Finding]:
    if beat.contracts != fingerprint():
        yield Finding("warning", f"node {beat.node}", "runs an agent with other messages: it gets no work",
                      "install the same build there and start its agent again")  # fmt: skip
    free, total = beat.resources.disk_free_bytes, beat.resources.disk_total_bytes
    if total and free < 0.05 * total:
        yield Finding("critical", f"node {beat.node}", f"{free / 2**30:.1f} GiB of disk left", "free disk space there")


async def _clock(nc: Client) -> list[Finding]:
    """The server stamps a reading of ours: half a round trip is the doubt."""
    before = datetime.now(UTC)
    js = nc.jetstream(timeout=5)
    ack = await js.publish("tel.spar-doctor.clock", b"{}")
    after = datetime.now(UTC)
    stored = await js.get_msg(TELEMETRY, ack.seq)
    skew = (stored.time - before - (after - before) / 2).total_seconds() if stored.time else 0.0
    if abs(skew) < MOST_SKEW_S:
        return []
    return [
        Finding(
            "warning", "clock", f"this machine and the server differ by {skew:+.1f} s", "run a time service (chrony)"
        )
    ]
