"""The published language of `training-slots`: who may train, until when, under which fencing token."""

from __future__ import annotations

from typing import Literal

from sparring.contracts.base import Annotated, Count, Fact, Field, Instant, Name, Order, Seconds

Severity = Literal["minor", "moderate", "low_quality", "severe"]
Factor = Annotated[float, Field(ge=0, le=1, description="the share of its turns that the lane keeps; 0 is a pause")]


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


class PreemptionAsked(_Pool, owner="training-slots", entity="pool", key="pool"):
    """The holder should write a checkpoint and release; its lease is not renewed past `until`."""

    lane: Name
    token: Count
    holder: Name
    by: Name
    reason: str
    grace_s: Seconds
    until: Instant


class PreemptionRefused(_Pool, owner="training-slots", entity="pool", key="pool"):
    lane: Name
    by: Name
    reason: str


class SlotPreempted(_Pool, owner="training-slots", entity="pool", key="pool"):
    """The slot is free: its holder was asked to give way. `gave_way` says that it did so itself, within the grace time."""

    lane: Name
    token: Count
    holder: Name
    held_s: Seconds
    gave_way: bool


class LaneHeldBack(_Pool, owner="training-slots", entity="pool", key="pool"):
    """The lane gets fewer turns until the time named, none with factor 0; one hold a cause, the newest counts."""

    lane: Name
    reason: str
    until: Instant
    cause: Name = "operator"
    severity: Severity = "severe"
    factor: Factor = 0.0
    by: str = ""
    revision: Count = 0


class HoldBackLifted(_Pool, owner="training-slots", entity="pool", key="pool"):
    """A hold ended before its time."""

    lane: Name
    cause: Name
    by: Name
    reason: str
    revision: Count = 0


class HoldBackRefused(_Pool, owner="training-slots", entity="pool", key="pool"):
    """An order older than the newest about this lane and cause, or a lift of a hold that is not there."""

    lane: Name
    cause: Name
    reason: str
    revision: Count
    newest: Count


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


class PreemptSlot(Order, owner="training-slots", entity="pool", key="pool"):
    """Asks whoever trains the lane to write a checkpoint and give way. Without `grace_s` the service's own holds."""

    pool: Name = "main"
    lane: Name
    by: Name
    reason: str
    grace_s: Seconds | None = None
    token: Count | None = Field(default=None, description="only this holder; None: whoever holds it")


class HoldLaneBack(Order, owner="training-slots", entity="pool", key="pool"):
    """The severity says how much: minor is a note, moderate 0.8 of the lane's turns, low_quality 0.7, severe none."""

    pool: Name = "main"
    lane: Name
    reason: str
    for_s: Seconds
    cause: Name = "operator"
    severity: Severity = "severe"
    by: str = ""
    revision: Count = 0


class LiftHoldBack(Order, owner="training-slots", entity="pool", key="pool"):
    pool: Name = "main"
    lane: Name
    cause: Name = "operator"
    by: Name
    reason: str = ""
    revision: Count = 0
