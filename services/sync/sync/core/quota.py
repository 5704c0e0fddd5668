"""How many transfers run, per node and in the cluster: the guard of every grant."""

from __future__ import annotations

from dataclasses import dataclass, field

from sparring.contracts.sync import TransferAdmitted
from sparring.decider import Decider, Recorded


@dataclass(frozen=True)
class Quota:
    """Running transfers, batch to node; what ended is freed by the next grant, so the count is never too low."""

    running: dict[str, str] = field(default_factory=dict)


def evolve(quota: Quota, recorded: Recorded) -> Quota:
    match recorded.fact:
        case TransferAdmitted(batch=batch, node=node, freed=freed):
            gone = frozenset(freed)
            kept = {name: where for name, where in quota.running.items() if name not in gone}
            return Quota(kept | {batch: node})
    return quota


QUOTA = Decider("sync", "quota", Quota(), evolve)
MAIN = "main"
