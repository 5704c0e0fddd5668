"""Exclusive work holds a right that ends: renewed while the network lets it, given up at this node's own deadline."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Callable

from nats.aio.client import Client

from node_agent.roster import Running
from node_agent.settings import AgentSettings
from node_agent.trouble import TROUBLE
from sparring import clock
from sparring.contracts.training_slots import RenewSlot
from sparring.envelope import derived_id, encode_order
from sparring.log.jetstream import JetStreamLog
from sparring.streams import COMMANDS

Stop = Callable[[str, float], None]


async def guard(nc: Client, settings: AgentSettings, running: Running, stop: Stop) -> None:
    """Returns once the task was stopped; cancelled when the task ends before.

    `stop(reason, grace_s)` ends the task, whether it is fetched, run or stored; at once when there is no grace.
    """
    if running.order.spec.slot_token:
        await _renewing(nc, settings, running, stop)
    else:
        await _connected(nc, settings, stop)


async def _connected(nc: Client, settings: AgentSettings, stop: Stop) -> None:
    """Exclusive work without a slot ends when nobody has been heard for a slot's lease."""
    heard = time.monotonic()
    while time.monotonic() - heard < settings.slot_lease_s:
        if nc.is_connected:
            heard = time.monotonic()
        await asyncio.sleep(min(1.0, settings.slot_lease_s / 10))
    stop(f"cut off for {settings.slot_lease_s:.0f} s: exclusive work does not go on unheard", 0.0)


async def _renewing(nc: Client, settings: AgentSettings, running: Running, stop: Stop) -> None:
    """Renews the training slot; past its own deadline the task ends, whatever the network says.

    Whoever is asked to give way gets a SIGTERM and the grace time to write a checkpoint.
    """
    spec = running.order.spec
    slot = spec.slot_token or 0
    deadline, scanned = time.monotonic() + settings.slot_lease_s, slot
    asked, told, log = -math.inf, False, JetStreamLog(nc)
    while (rest := deadline - time.monotonic()) > 0:
        with contextlib.suppress(*TROUBLE):
            async with asyncio.timeout(rest):
                if time.monotonic() - asked >= settings.renew_s / 3:
                    asked = time.monotonic()
                    await _renew(nc, settings, spec.lane, slot, spec.iteration)
                said = await log.load("evt.training-slots.pool.main.>", scanned)
            for raw in said:
                scanned = raw.sequence
                name, body = raw.subject.rpartition(".")[2], json.loads(raw.body)
                if body.get("token") != slot:
                    continue
                if name == "SlotRenewed":
                    deadline = max(deadline, asked - settings.renew_s + settings.slot_lease_s)
                elif name in ("SlotExpired", "SlotPreempted"):
                    deadline = -math.inf
                elif name == "PreemptionAsked" and not told:
                    told = True
                    stop(f"asked to give way by {body['by']}: {body['reason']}", float(body["grace_s"]))
        rest = max(0.0, deadline - time.monotonic())
        await asyncio.sleep(min(rest, 1.0, settings.renew_s / 3))
    stop("the training slot is lost: it could not be renewed in time", 0.0)


async def _renew(nc: Client, settings: AgentSettings, lane: str, slot: int, correlation: str) -> None:
    bucket = int(time.time() // settings.renew_s)
    order = RenewSlot(lane=lane, token=slot)
    id = derived_id(f"renew-{slot}-{bucket}", "agent", lane)
    subject, headers, body = encode_order(order, id, now=clock.now(), source=f"node-agent/{settings.node}",
                                          correlation=correlation, expires_s=settings.renew_s)  # fmt: skip
    await nc.jetstream(timeout=5).publish(subject, body, headers=headers, stream=COMMANDS)
