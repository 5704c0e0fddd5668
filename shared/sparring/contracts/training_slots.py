"""The published language of `training-slots`: who may train, until when, under which fencing token."""

from __future__ import annotations

from sparring.contracts.base import Count, Fact, Instant, Name, Order, Seconds


class _Pool(Fact):
    """Facts of the one pool."""

    pool: Name = "main"


class SlotClaimed(_Pool, owner="training-slots", entity="pool", key="pool"):
    """The lane may train; this fact's sequence is the fencing token."""

    lane: Name
    holder: Name
    until: Instant
    waited_s: Seconds
    held: Count
    limit: Count


class ClaimQueued(_Pool, owner="training-slots", entity="pool", key="pool"):
    """The claim waits: the lane's slot or all slots are held."""

    lane: Name
    holder: Name
    priority: int
    lease_s: Seconds
    held_by: tuple[str, ...]
    limit: Count
    expires_at: Instant


class ClaimWithdrawn(_Pool, owner="training-slots", entity="pool", key="pool"):
    lane: Name
    holder: Name
    reason: str


class SlotRenewed(_Pool, owner="training-slots", entity="pool", key="pool"):
    lane: Name
    token: Count
    until: Instant


class RenewalRefused(_Pool, owner="training-slots", entity="pool", key="pool"):
    lane: Name
    token: Count
    reason: str


class SlotReleased(_Pool, owner="training-slots", entity="pool", key="pool"):
    lane: Name
    token: Count
    held_s: Seconds


class SlotExpired(_Pool, owner="training-slots", entity="pool", key="pool"):
    lane: Name
    token: Count
    holder: Name
    reason: str


class LaneHeldBack(_Pool, owner="training-slots", entity="pool", key="pool"):
    """The lane gets no slot until the time named."""

    lane: Name
    reason: str
    until: Instant


class ClaimSlot(Order, owner="training-slots", entity="pool", key="pool"):
    pool: Name = "main"
    lane: Name
    holder: Name
    priority: int = 0
    lease_s: Seconds = 90.0


class RenewSlot(Order, owner="training-slots", entity="pool", key="pool"):
    pool: Name = "main"
    lane: Name
    token: Count


class ReleaseSlot(Order, owner="training-slots", entity="pool", key="pool"):
    """Gives the slot back; with token 0 it withdraws the holder's queued claim."""

    pool: Name = "main"
    lane: Name
    holder: Name
    token: Count


class HoldLaneBack(Order, owner="training-slots", entity="pool", key="pool"):
    pool: Name = "main"
    lane: Name
    reason: str
    for_s: Seconds
