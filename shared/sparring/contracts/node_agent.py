"""The orders that a node's agent obeys; it owns no facts."""

from __future__ import annotations

from sparring.contracts.base import Count, Name, Order, Seconds, Sha256
from sparring.contracts.parts import TaskSpec


class StartTask(Order, owner="node-agent", entity="node", key="node"):
    node: Name
    boot: Name
    task: Name
    attempt: Count
    spec: TaskSpec


class StopTask(Order, owner="node-agent", entity="node", key="node"):
    node: Name
    task: Name
    attempt: Count
    reason: str


class UploadBatch(Order, owner="node-agent", entity="node", key="node"):
    """Bring a batch to the store within the lease, then report it."""

    node: Name
    batch: Name
    sha256: Sha256
    grant: Count
    lease_s: Seconds
    bytes_per_s: Count


class ReleaseCustody(Order, owner="node-agent", entity="node", key="node"):
    """The store's copy was verified: the node's own may go."""

    node: Name
    batch: Name
    sha256: Sha256


class HaltNode(Order, owner="node-agent", entity="node", key="node"):
    """Kill every child now."""

    node: Name
    reason: str


class DrainAgent(Order, owner="node-agent", entity="node", key="node"):
    """Finish or stop within the grace time, bring everything to the store, leave."""

    node: Name
    grace_s: Seconds
    reason: str
