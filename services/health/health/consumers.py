"""Looks at the server's consumers: one that nobody pulls from, or whose messages find no answer, raises no advisory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from nats.js.api import ConsumerInfo
from nats.js.errors import NotFoundError

from health.pulling import TROUBLE
from sparring.contracts.readings import Consumers, Stalled
from sparring.streams import COMMANDS, EVENTS
from sparring.subjects import token

LOOK_S = 5.0
AGENTS = "agent-"


async def watch(shell: Any) -> None:
    """Publishes what stalls as a reading; the planner raises and clears the alarms."""
    since: dict[tuple[str, str], Any] = {}
    while not shell.stopping.is_set():
        if shell.leads:
            try:
                found = await _stalled(shell, since)
                subject = f"tel.{token(f'svc-health-{shell.replica}')}.consumers"
                await shell.nc.publish(subject, Consumers(stalled=tuple(found)).model_dump_json().encode())
            except TROUBLE as error:
                shell.log.warning("the consumers can't be seen", error=repr(error))
        await shell.pause(LOOK_S)


async def _stalled(shell: Any, since: dict[tuple[str, str], Any]) -> list[Stalled]:
    found, now = [], shell.now()
    async for info in durables(shell):
        place, pulling = (info.stream_name, info.name), bool(info.num_waiting)
        unanswered, limit = info.num_ack_pending or 0, info.config.max_ack_pending or 1
        # an ordered consumer has one in hand all the time
        full = limit > 1 and unanswered >= limit / 2
        if not full and (pulling or not (info.num_pending or unanswered)):
            since.pop(place, None)
            continue
        began = since.setdefault(place, now)
        found.append(
            Stalled(consumer=info.name, stream=info.stream_name, waiting=info.num_pending or 0, unanswered=unanswered,
                    limit=limit, pulled=pulling, for_s=max(0.0, (now - began).total_seconds()))
        )  # fmt: skip
    return found


async def durables(shell: Any) -> AsyncIterator[ConsumerInfo]:
    """The durable consumers of COMMANDS and EVENTS, but the agents' own: there are thousands, and a node is watched."""
    for stream in (COMMANDS, EVENTS):
        for name in await _names(shell, stream):
            if name.startswith(AGENTS):
                continue
            try:
                info = await shell.js.consumer_info(stream, name)
            except NotFoundError:
                continue
            if info.config.durable_name:
                yield info


async def _names(shell: Any, stream: str) -> list[str]:
    found: list[str] = []
    while True:
        asked = json.dumps({"offset": len(found)}).encode()
        answer = json.loads((await shell.nc.request(f"$JS.API.CONSUMER.NAMES.{stream}", asked, timeout=5)).data)
        page = answer.get("consumers") or []
        found += page
        if not page or len(found) >= answer.get("total", 0):
            return found
