"""The published language: every fact and order, one module per owner."""

from sparring.contracts import (
    health,
    lifecycle,
    node_agent,
    pipeline,
    selfplay_orch,
    sync,
    training_slots,
)
from sparring.contracts.base import FACTS, ORDERS, Fact, Message, Order, Part

__all__ = [
    "FACTS",
    "ORDERS",
    "Fact",
    "Message",
    "Order",
    "Part",
    "health",
    "lifecycle",
    "node_agent",
    "pipeline",
    "selfplay_orch",
    "sync",
    "training_slots",
]
