"""Streams, buckets, consumers, storage: the server against what is declared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from nats.js import JetStreamContext, api
from nats.js.errors import NotFoundError

from sparring.catalogue import services
from sparring.contracts.base import FACTS, ORDERS
from sparring.doctor.finding import Finding
from sparring.doctor.wiring import matches_a_contract
from sparring.streams import (
    ADVISORIES,
    ARTIFACTS,
    COMMANDS,
    DLQ,
    EVENTS,
    FAILURES,
    LEASES,
    MAX_PAYLOAD,
    SNAPSHOTS,
    STREAMS,
    Durable,
    Stream,
)
from sparring.topology import durable_drift, stream_drift

BUCKETS = (f"KV_{LEASES}", f"KV_{FAILURES}", f"OBJ_{ARTIFACTS}", f"OBJ_{SNAPSHOTS}")
# consumers that are made per node or by a service's worker
OWN = ("agent-", "alarm-teller", "dead-letter-keeper")
FULL, LAGGING = 0.8, 1_000
# every fact is a subject of its own, and the server holds its subjects in memory: bytes each, by benchmarks/growth.py
SUBJECT_BYTES, MANY_FACTS = 700, 5_000_000
STILL_S, LOOKS = 0.5, 4


async def streams(js: JetStreamContext) -> AsyncIterator[Finding]:
    """Missing, drifted or nearly full streams, replicas that are gone, streams that nobody declared."""
    for stream in STREAMS:
        try:
            info = await js.stream_info(stream.name)
        except NotFoundError:
            yield Finding(
                "critical", f"stream {stream.name}", "is missing", "start any service: it declares the topology"
            )
            continue
        for finding in [*_drifted(stream, info), *_full(info), *_long(info), *_replicas(info)]:
            yield finding
    found = {info.config.name or "" for info in await js.streams_info()}
    for bucket in BUCKETS:
        if bucket not in found:
            yield Finding("critical", f"bucket {bucket}", "is missing", "start any service: it declares the topology")
    for name in sorted(found - {stream.name for stream in STREAMS} - set(BUCKETS)):
        yield Finding("note", f"stream {name}", "is not declared", "leave it if it is yours; else `nats stream rm`")


def _drifted(stream: Stream, info: api.StreamInfo) -> Iterator[Finding]:
    for drift in stream_drift(stream, info.config):
        yield Finding("warning", drift.where, str(drift), "set it back with `nats stream edit`, or declare the change")


def _full(info: api.StreamInfo) -> Iterator[Finding]:
    config, state = info.config, info.state
    # a stream that drops its oldest is made to be full
    old = getattr(config.discard, "value", config.discard) == "old" and config.name != EVENTS
    for what, used, most in (("bytes", state.bytes, config.max_bytes), ("messages", state.messages, config.max_msgs)):
        if most and most > 0 and used > FULL * most and not (old and config.storage == "memory"):
            yield Finding("warning", f"stream {config.name}", f"{used:,} of {most:,} {what}",
                          "raise the limit, or archive: what comes after it is refused or drops the oldest")  # fmt: skip


def _long(info: api.StreamInfo) -> Iterator[Finding]:
    messages = info.state.messages
    if info.config.name == EVENTS and messages >= MANY_FACTS:
        yield Finding("warning", f"stream {EVENTS}", f"{messages:,} facts take about {messages * SUBJECT_BYTES / 2**30:.1f} GiB "
                      "of the server's memory", "`spar log archive --before`, daily: every read answers as before")  # fmt: skip


def _replicas(info: api.StreamInfo) -> Iterator[Finding]:
    cluster, name = info.cluster, f"stream {info.config.name}"
    if cluster is None or (info.config.num_replicas or 1) < 2:
        return
    if not cluster.leader:
        yield Finding("critical", name, "has no leader: nothing can be appended", "start its missing servers")
    for peer in cluster.replicas or []:
        if peer.offline:
            yield Finding("critical", name, f"its replica on {peer.name} is offline", f"start the server {peer.name}")
        elif not peer.current and (peer.lag or 0) > LAGGING:
            yield Finding(
                "warning", name, f"its replica on {peer.name} is {peer.lag} behind", f"look after {peer.name}"
            )


async def consumers(js: JetStreamContext, more: Sequence[Durable] = ()) -> AsyncIterator[Finding]:
    """Missing, drifted, deaf, stalled and lagging consumers, and those that nobody declared."""
    declared = {(one.stream, one.name): (one, service.name) for service in services() for one in service.durables()}
    declared |= {(one.stream, one.name): (one, "") for one in more}
    found = await _all(js)
    for place, (durable, owner) in declared.items():
        if place not in found:
            yield Finding("warning", f"consumer {durable.name}", "is missing", f"start {owner}: it declares it")
            continue
        for drift in durable_drift(durable, found[place].config):
            yield Finding("warning", drift.where, str(drift), "renaming a durable is a migration; see infra/runbooks")
    for place, info in found.items():
        if place not in declared and not place[1].startswith(OWN):
            yield Finding("warning", f"consumer {place[1]}", f"on {place[0]} is declared by nobody",
                          f"`nats consumer rm {place[0]} {place[1]}` when nothing of yours pulls from it")  # fmt: skip
        for finding in _deaf(place, info):
            yield finding
    for finding in [*_behind(found), *await _stalled(js, found)]:
        yield finding


Found = Mapping[tuple[str, str], api.ConsumerInfo]


async def _all(js: JetStreamContext) -> Found:
    """Every durable consumer on the streams of messages."""
    found: dict[tuple[str, str], api.ConsumerInfo] = {}
    for stream in (EVENTS, COMMANDS, DLQ, ADVISORIES):
        offset = 0
        while True:
            try:
                part = await js.consumers_info(stream, offset=offset)
            except NotFoundError:
                break
            found |= {(stream, one.name): one for one in part if one.config.durable_name}
            offset += len(part)
            if len(part) < 256:
                break
    return found


def _deaf(place: tuple[str, str], info: api.ConsumerInfo) -> Iterator[Finding]:
    if place[0] not in (EVENTS, COMMANDS):
        return
    filters = info.config.filter_subjects or ([info.config.filter_subject] if info.config.filter_subject else [])
    messages = {*FACTS.values(), *ORDERS.values()}
    for pattern in filters:
        if not pattern.startswith(("retry.", "evt.ext-")) and not matches_a_contract(pattern, messages):
            yield Finding("warning", f"consumer {place[1]}", f"its filter {pattern} matches no contract: it hears nothing",
                          "correct the filter, or install the build whose contracts it means")  # fmt: skip


def _behind(found: Found) -> Iterator[Finding]:
    for (_, name), info in found.items():
        if (info.num_pending or 0) > LAGGING:
            yield Finding("warning", f"consumer {name}", f"{info.num_pending:,} messages behind",
                          "start another replica of its service; `spar services` shows which lags")  # fmt: skip
        pending, most = info.num_ack_pending or 0, info.config.max_ack_pending or 0
        if 1 < most < 2 * pending:
            yield Finding("critical", f"consumer {name}", f"{pending:,} deliveries wait for an answer, {most:,} is the most",
                          "`spar dlq ls` shows what fails; restart its service if it hangs")  # fmt: skip


async def _stalled(js: JetStreamContext, found: Found) -> list[Finding]:
    """Something waits and nobody pulls, at every one of several looks: the server says nothing about it by itself."""
    suspects = [place for place, info in found.items() if _still(info)]
    for _ in range(LOOKS if suspects else 0):
        await asyncio.sleep(STILL_S)
        now = {place: await js.consumer_info(*place) for place in suspects}
        suspects = [place for place in suspects if _still(now[place])]
        found = {**found, **now}
    return [
        Finding("critical", f"consumer {name}",
                f"{found[stream, name].num_ack_pending} deliveries and {found[stream, name].num_pending} messages wait, and nobody pulls",
                "start its service; if it runs, restart it: its pull has died")
        for stream, name in suspects if not name.startswith("agent-")
    ]  # fmt: skip


def _still(info: api.ConsumerInfo) -> bool:
    return bool((info.num_ack_pending or 0) + (info.num_pending or 0)) and not info.num_waiting


def payload(most: int) -> Iterator[Finding]:
    """Whether the server takes messages as large as they may become."""
    if most < MAX_PAYLOAD:
        yield Finding("warning", "server", f"takes messages of at most {most:,} bytes, larger ones are refused",
                      "set `max_payload: 8MB` in its configuration: the list of a large data set needs it")  # fmt: skip


async def storage(js: JetStreamContext, monitored: Mapping[str, Any]) -> AsyncIterator[Finding]:
    """How much of what JetStream may keep is kept: by the account's limit, and by the server's where it says so."""
    account = await js.account_info()
    jsz, varz = monitored.get("jsz", {}), monitored.get("varz", {})
    config = jsz.get("config", {})
    pairs = (
        ("account", account.storage, account.limits.max_storage),
        ("account's memory", account.memory, account.limits.max_memory),
        ("server", jsz.get("storage", 0), config.get("max_storage", 0)),
        ("server's memory", jsz.get("memory", 0), config.get("max_memory", 0)),
    )
    for what, used, most in pairs:
        if most and most > 0 and used > FULL * most:
            yield Finding("critical" if used > 0.95 * most else "warning", f"storage of the {what}",
                          f"{used / 2**20:,.0f} of {most / 2**20:,.0f} MiB are used",
                          "`spar log archive --before`, or give JetStream more room (max_file_store)")  # fmt: skip
    if varz.get("slow_consumers"):
        yield Finding("note", "server", f"{varz['slow_consumers']} slow consumers were cut off since its start",
                      "give the machine more cores; such clients connect again by themselves")  # fmt: skip
