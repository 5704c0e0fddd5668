"""Other ways to place and share, for comparison in the simulator; production runs none of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from selfplay_orch.core import placement, plan
from selfplay_orch.core.cluster import Lane
from selfplay_orch.core.index import Wish
from selfplay_orch.core.look import Look
from selfplay_orch.core.shares import quota, shares
from selfplay_orch.settings import KINDS
from sparring.contracts.selfplay_orch import LaneShare
from sparring.simulation.policies import Policy

SERVICE = "selfplay-orch"
NO_HEAD_STARTS = {"kinds": {name: {"reserved": 0, "head_start_s": 0.0} for name in KINDS}, "reserve_head_start_s": 0.0}
# the predecessor's one global priority number, in seconds of age that it was worth: age never counts
PRIORITY_S = {"train": 4e6, "export": 3e6, "evaluate": 2e6, "tune": 1e6}


def equal_shares(lanes: Mapping[str, Lane], now: datetime) -> tuple[LaneShare, ...]:
    """Every lane that wants seats gets as much as every other, whatever it needs."""
    scored = shares(lanes, now)
    wanting = sum(lanes[one.lane].wants for one in scored)
    most = quota(wanting)
    return tuple(
        one.model_copy(update={"share": min(most, 1 / wanting) if lanes[one.lane].wants else 0.0}) for one in scored
    )


def by_priority(look: Look, wish: Wish) -> float:  # noqa: ARG001
    return PRIORITY_S.get(wish.kind, 0.0)


POLICIES = [
    Policy("fifo", "first asked, first placed: no kind has a head start or a reserve", {SERVICE: NO_HEAD_STARTS}),
    Policy("no-reserve", "the pipeline's work has no seats of its own", {SERVICE: {"reserved_seats": 0}}),
    Policy("no-ageing", "kinds by fixed priority numbers, however long something waits", replaces=(
        (placement, "head_start_s", by_priority),)),
    Policy("equal-shares", "lanes get equal shares, whatever they need", replaces=((plan, "shares", equal_shares),)),
]  # fmt: skip
