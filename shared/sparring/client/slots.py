"""A training slot in one's own process: claimed, renewed in the background, lost at its own monotonic deadline."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from typing import Self

import nats.errors
from nats.js.errors import Error as JetStreamError

from sparring import clock
from sparring.client.orders import Orders
from sparring.contracts.training_slots import (
    ClaimSlot,
    ClaimWithdrawn,
    PreemptionAsked,
    ReleaseSlot,
    RenewalRefused,
    RenewSlot,
    SlotClaimed,
    SlotExpired,
    SlotPreempted,
    SlotRenewed,
)
from sparring.decider import Recorded
from sparring.ending import ended
from sparring.errors import BadInput, LogUnavailable, Transient
from sparring.hearing import heard
from sparring.log.jetstream import JetStreamLog
from sparring.subjects import Ref

POOL = Ref("training-slots", "pool", "main").pattern
TROUBLE = (BadInput, LogUnavailable, nats.errors.Error, JetStreamError, TimeoutError, OSError)
LOOK_S = 0.5


class SlotNotGranted(Transient):
    """No slot came within the time that the caller gave; its claim is withdrawn."""


class SlotLost(Transient):
    """The slot is not held any more: what was trained under it is refused."""


class TrainingSlot:
    """`async with client.training_slot("hex5_2p") as slot: …` — the right to train the lane, under `slot.token`.

    `lost` is set when the slot ended: at its own monotonic deadline (the time before the last request that was answered,
    plus the lease), whatever the network says, or when its owner said so. `asked` is set when the holder should write a
    checkpoint and leave within `give_way_s`. The event loop must run for renewals: train in a thread or a process.
    """

    def __init__(
        self, client: Orders, lane: str, *, priority: int = 0, lease_s: float = 90.0, within_s: float | None = None,
        holder: str = "",
    ) -> None:  # fmt: skip
        self._client, self._within_s, self._lease_s, self._priority = client, within_s, lease_s, priority
        self.lane = lane
        self.holder = holder or f"{socket.gethostname()[:40]}-{os.getpid()}-{clock.new_id()[:8]}"
        self.token = 0
        self.deadline = 0.0
        self.lost, self.asked = asyncio.Event(), asyncio.Event()
        self.reason = ""
        self.give_way_s = 0.0
        self._heard = 0
        self._requests: dict[str, float] = {}
        self._answered = False
        self._keeper: asyncio.Task[None] | None = None

    @property
    def rest_s(self) -> float:
        """Seconds until the slot is lost unless it is renewed; 0 when it is."""
        return 0.0 if self.lost.is_set() else max(0.0, self.deadline - time.monotonic())

    def check(self) -> None:
        """Raises SlotLost when the slot is not held any more."""
        if self.lost.is_set() or time.monotonic() >= self.deadline:
            raise SlotLost(f"the training slot of {self.lane} is lost: {self.reason or 'its deadline passed'}")

    async def __aenter__(self) -> Self:
        await self.claim()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.release()

    async def claim(self) -> None:
        """Waits for the slot, and renews it once: only then is its deadline known on this process's own clock.

        Raises SlotNotGranted when it does not come within `within_s`, LogUnavailable when no server answers, BadInput for a
        lane that nobody registered.
        """
        log = await self._log()
        await self._client.check_lane(self.lane)
        self._heard = await log.last(POOL)
        order = ClaimSlot(lane=self.lane, holder=self.holder, priority=self._priority, lease_s=self._lease_s)
        await self._client.publish(order, expires_s=self._within_s)
        try:
            async with asyncio.timeout(self._within_s):
                await self._granted()
                await self._renewed()
        except TimeoutError as error:
            await self._give_back()
            raise SlotNotGranted(
                f"no training slot for {self.lane} within {self._within_s:g} s; see spar slots"
            ) from error
        except BaseException:
            with contextlib.suppress(*TROUBLE):
                await self._give_back()
            raise
        self._keeper = asyncio.create_task(self._keep())

    async def release(self) -> None:
        """Gives the slot back; at once, or as soon as a server answers."""
        if self._keeper is not None:
            await ended(self._keeper)
            self._keeper = None
        if not self.lost.is_set():
            self._end("released")
            await self._give_back()

    async def _give_back(self) -> None:
        await self._client.send(ReleaseSlot(lane=self.lane, holder=self.holder, token=self.token), expires_s=3600.0)

    async def _log(self) -> JetStreamLog:
        return JetStreamLog(await self._client._connected())

    async def _hear(self) -> list[Recorded]:
        """What the pool said since the last look."""
        raws = await (await self._log()).load(POOL, self._heard)
        if raws:
            self._heard = raws[-1].sequence
        return [one for raw in raws if (one := heard(raw)) is not None]

    async def _granted(self) -> None:
        while True:
            for one in await self._hear():
                match one.fact:
                    case SlotClaimed(holder=holder) if holder == self.holder:
                        self.token = one.sequence
                        return
                    case ClaimWithdrawn(holder=holder, reason=reason) if holder == self.holder:
                        raise SlotNotGranted(f"the claim for {self.lane} was withdrawn: {reason}")
            await asyncio.sleep(LOOK_S / 2)

    async def _renewed(self) -> None:
        self.deadline = time.monotonic() + self._lease_s
        while True:
            await self._renew()
            for _ in range(20):
                for one in await self._hear():
                    self._take(one)
                if self._answered:
                    return
                self.check()
                await asyncio.sleep(LOOK_S / 5)

    async def _renew(self) -> None:
        before = time.monotonic()
        id = await self._client.publish(RenewSlot(lane=self.lane, token=self.token), expires_s=self._lease_s / 3)
        self._requests[id] = before

    def _take(self, one: Recorded) -> None:
        """Everything that the pool says about this slot."""
        if getattr(one.fact, "token", 0) != self.token:
            return
        match one.fact:
            case SlotRenewed(until=until) if one.order in self._requests:
                granted_s = min(self._lease_s, (until - one.at).total_seconds())
                self.deadline = self._requests.pop(one.order) + granted_s
                self._answered = True
            case PreemptionAsked(by=by, reason=reason, grace_s=grace_s):
                self.give_way_s, self.reason = grace_s, f"{by} asks to give way: {reason}"
                self.asked.set()
            case SlotExpired(reason=reason) | RenewalRefused(reason=reason):
                self._end(reason)
            case SlotPreempted(gave_way=False):
                self._end(self.reason or "it was asked to give way and did not")

    async def _keep(self) -> None:
        """Renews every third of the lease; a renewal that nobody answers is tried again every second."""
        due = time.monotonic() + self._lease_s / 3
        while not self.lost.is_set():
            rest = self.deadline - time.monotonic()
            if rest <= 0:
                self._end(self.reason or "it could not be renewed in time")
                return
            with contextlib.suppress(*TROUBLE):
                async with asyncio.timeout(rest):
                    if time.monotonic() >= due:
                        due = time.monotonic() + 1.0
                        await self._renew()
                        due = time.monotonic() + self._lease_s / 3
                    for one in await self._hear():
                        self._take(one)
            await asyncio.sleep(max(0.0, min(LOOK_S, self.deadline - time.monotonic())))

    def _end(self, reason: str) -> None:
        self.reason = reason
        self.lost.set()
