"""The topology, declared once as data: streams, buckets and durables; `sparring.topology` makes the server agree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

DAY_S = 86_400.0
EVENTS, COMMANDS, TELEMETRY, DLQ, ADVISORIES = "EVENTS", "COMMANDS", "TELEMETRY", "DLQ", "ADVISORIES"
LEASES, FAILURES, ARTIFACTS, SNAPSHOTS = "LEASES", "FAILURES", "ARTIFACTS", "SNAPSHOTS"
LEASE_TTL_S = 3.0
# what a server has to take, in bytes: `max_payload` of its configuration
MAX_PAYLOAD = 8 * 1024 * 1024


@dataclass(frozen=True)
class Stream:
    """What a stream must be; only what is named here is compared."""

    name: str
    subjects: tuple[str, ...]
    what: str
    settings: dict[str, Any] = field(default_factory=dict)


STREAMS = (
    Stream(
        EVENTS,
        ("evt.>",),
        "the log: one total order for the whole cluster",
        {"deny_delete": True, "allow_direct": True, "allow_atomic": True, "compression": "s2"},
    ),
    Stream(COMMANDS, ("cmd.>", "retry.>"), "orders", {"max_age": 14 * DAY_S, "allow_direct": True}),
    Stream(
        TELEMETRY,
        ("tel.>",),
        "heartbeats and readings, never a fact",
        {"max_age": 900.0, "storage": "memory", "allow_direct": True, "max_bytes": 64 * 1024 * 1024},
    ),
    Stream(DLQ, ("dlq.>",), "dead letters: the whole original", {"allow_direct": True}),
    Stream(
        ADVISORIES,
        (
            "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>",
            "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>",
        ),
        "what the server says about messages that were given up",
        {"max_age": 30 * DAY_S},
    ),
)


@dataclass(frozen=True)
class Durable:
    """A durable consumer: `first` starts at the stream's beginning, `now` at what comes after its creation."""

    name: str
    stream: str
    filters: tuple[str, ...]
    start: Literal["first", "now"] = "first"
    ack_wait_s: float = 60.0
    max_deliver: int = 5
    max_ack_pending: int = 20_000


def service_durables(service: str, reactions: tuple[str, ...] = (), *, ordered: bool = False) -> list[Durable]:
    """The durables of a service: its orders, its reactions, and the twin of each that only redriven letters reach.

    An `ordered` consumer has one message in hand: what is tried again holds the next one back.
    """
    pending = 1 if ordered else 20_000
    durables = [
        Durable(service, COMMANDS, (f"cmd.{service}.>",), max_ack_pending=pending),
        Durable(f"{service}-retry", COMMANDS, (f"retry.{service}.>",), max_ack_pending=pending),
    ]
    if reactions:
        durables += [
            Durable(f"{service}-reactions", EVENTS, reactions, max_ack_pending=pending),
            Durable(f"{service}-reactions-retry", COMMANDS, (f"retry.{service}-reactions.>",), max_ack_pending=pending),
        ]
    return durables
