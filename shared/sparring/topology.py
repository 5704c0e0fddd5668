"""Makes the server agree with the declared topology; what differs is reported, never overwritten."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from nats.aio.client import Client
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, BucketNotFoundError, NotFoundError

from sparring.streams import (
    ARTIFACTS,
    DAY_S,
    FAILURES,
    LEASE_TTL_S,
    LEASES,
    SNAPSHOTS,
    STREAMS,
    Durable,
    Stream,
)


@dataclass(frozen=True)
class Drift:
    """A setting on the server that differs from the declaration."""

    where: str
    setting: str
    declared: Any
    found: Any

    def __str__(self) -> str:
        return f"{self.where}: {self.setting} is {self.found!r} on the server, declared {self.declared!r}"


def declared_config(stream: Stream, replicas: int) -> api.StreamConfig:
    return api.StreamConfig(
        name=stream.name,
        subjects=list(stream.subjects),
        description=stream.what,
        num_replicas=replicas,
        **stream.settings,
    )


async def declare_topology(nc: Client, *, replicas: int = 1) -> list[Drift]:
    """Creates what is missing and compares what is there. Never changes an existing stream."""
    js = nc.jetstream(timeout=10)
    drifts: list[Drift] = []
    for stream in STREAMS:
        drifts += await _declare_stream(js, stream, replicas)
    await _declare_buckets(js, replicas)
    return drifts


async def _declare_stream(js: JetStreamContext, stream: Stream, replicas: int) -> list[Drift]:
    config = declared_config(stream, replicas)
    try:
        info = await js.stream_info(stream.name)
    except NotFoundError:
        try:
            info = await js.add_stream(config)
        except APIError:
            # another process declared it in the same moment
            info = await js.stream_info(stream.name)
    return stream_drift(stream, info.config)


def stream_drift(stream: Stream, found: api.StreamConfig) -> list[Drift]:
    declared: dict[str, Any] = {"subjects": list(stream.subjects), **stream.settings}
    drifts = []
    for setting, value in declared.items():
        actual = getattr(found, setting)
        plain = getattr(actual, "value", actual)
        if plain != value:
            drifts.append(Drift(f"stream {stream.name}", setting, value, plain))
    return drifts


async def _declare_buckets(js: JetStreamContext, replicas: int) -> None:
    buckets = (
        # a bucket of leases has no limit markers: they would outlive the lease
        api.KeyValueConfig(bucket=LEASES, ttl=LEASE_TTL_S, history=1, replicas=replicas),
        api.KeyValueConfig(bucket=FAILURES, ttl=14 * DAY_S, history=1, replicas=replicas),
    )
    for bucket in buckets:
        try:
            await js.key_value(bucket.bucket)
        except (BucketNotFoundError, NotFoundError):
            await _tolerating_a_race(js.create_key_value(bucket))
    for store in (ARTIFACTS, SNAPSHOTS):
        try:
            await js.object_store(store)
        except (BucketNotFoundError, NotFoundError):
            config = api.ObjectStoreConfig(replicas=replicas, storage=api.StorageType.FILE)
            await _tolerating_a_race(js.create_object_store(store, config=config))


async def _tolerating_a_race(creation: Any) -> None:
    try:
        await creation
    except APIError:
        # 10058: another process created it in the same moment with the same settings
        await asyncio.sleep(0)


async def declare_durable(js: JetStreamContext, durable: Durable) -> list[Drift]:
    """Creates the consumer when it is missing; an existing one keeps its settings, differences are reported."""
    wanted = consumer_config(durable)
    try:
        info = await js.consumer_info(durable.stream, durable.name)
    except NotFoundError:
        try:
            info = await js.add_consumer(durable.stream, wanted)
        except APIError:
            info = await js.consumer_info(durable.stream, durable.name)
    return durable_drift(durable, info.config)


def durable_drift(durable: Durable, found: api.ConsumerConfig) -> list[Drift]:
    filters = tuple(found.filter_subjects or ()) or ((found.filter_subject,) if found.filter_subject else ())
    pairs: tuple[tuple[str, Any, Any], ...] = (
        ("filters", tuple(sorted(durable.filters)), tuple(sorted(filters))),
        ("ack_wait", durable.ack_wait_s, found.ack_wait),
        ("max_deliver", durable.max_deliver, found.max_deliver),
        ("max_ack_pending", durable.max_ack_pending, found.max_ack_pending),
    )
    where = f"consumer {durable.name} on {durable.stream}"
    return [Drift(where, name, declared, actual) for name, declared, actual in pairs if declared != actual]


def consumer_config(durable: Durable) -> api.ConsumerConfig:
    return api.ConsumerConfig(
        durable_name=durable.name,
        filter_subjects=list(durable.filters) if len(durable.filters) > 1 else None,
        filter_subject=durable.filters[0] if len(durable.filters) == 1 else None,
        deliver_policy=api.DeliverPolicy.ALL if durable.start == "first" else api.DeliverPolicy.NEW,
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=durable.ack_wait_s,
        max_deliver=durable.max_deliver,
        max_ack_pending=durable.max_ack_pending,
    )
