"""The published language: every fact and order, one module per owner."""

import hashlib
from functools import cache

from sparring.contracts import (
    archivist,
    health,
    lifecycle,
    node_agent,
    pipeline,
    selfplay_orch,
    settings,
    sync,
    training_slots,
)
from sparring.contracts.base import FACTS, ORDERS, Fact, Message, Order, Part, registrations

__all__ = [
    "FACTS",
    "ORDERS",
    "Fact",
    "Message",
    "Order",
    "Part",
    "archivist",
    "fingerprint",
    "health",
    "lifecycle",
    "node_agent",
    "pipeline",
    "selfplay_orch",
    "settings",
    "sync",
    "training_slots",
]


def fingerprint() -> str:
    """Twelve hex digits that change with any message: agents and services with another one don't fit together."""
    return _fingerprint(registrations())


@cache
def _fingerprint(_: int) -> str:
    # fields too: they are refused by who does not know them, although an optional one keeps the version
    known = (cls for book in (FACTS, ORDERS) for cls in book.values())
    names = sorted(f"{cls.schema_name()} {' '.join(cls.model_fields)}" for cls in known)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
