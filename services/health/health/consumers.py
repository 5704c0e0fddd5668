"""Looks at the server's consumers: one that nobody pulls from, or whose messages find no answer, raises no advisory."""

from __future__ import annotations

from typing import Any

from health.dead_letters import TROUBLE
from sparring.contracts.readings import Consumers, Stalled
from sparring.streams import COMMANDS, EVENTS
from sparring.subjects import token

LOOK_S = 5.0


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
    for stream in (COMMANDS, EVENTS):
        for info in await shell.js.consumers_info(stream):
            if not info.config.durable_name:
                continue
            place, pulling = (stream, info.name), bool(info.num_waiting)
            unanswered, limit = info.num_ack_pending or 0, info.config.max_ack_pending or 1
            # an ordered consumer has one in hand all the time
            full = limit > 1 and unanswered >= limit / 2
            if not full and (pulling or not (info.num_pending or unanswered)):
                since.pop(place, None)
                continue
            began = since.setdefault(place, now)
            found.append(
                Stalled(consumer=info.name, stream=stream, waiting=info.num_pending or 0, unanswered=unanswered,
                        limit=limit, pulled=pulling, for_s=max(0.0, (now - began).total_seconds()))
            )  # fmt: skip
    return found
