"""Tells people: every alarm and its clearing goes to the log, and to a webhook and a command where they are set.

The position is a durable consumer's: what was not told before a restart is told after it, at least once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import urllib.error
import urllib.request
from typing import Any

from nats.aio.msg import Msg

from health.pulling import TROUBLE, pulled
from sparring.contracts.health import AlarmCleared, AlarmRaised
from sparring.decider import Recorded
from sparring.envelope import recorded
from sparring.errors import Permanent
from sparring.streams import EVENTS, Durable
from sparring.subjects import filter_of

TELLER = Durable(
    "alarm-teller",
    EVENTS,
    (filter_of(AlarmRaised), filter_of(AlarmCleared)),
    start="now",
    ack_wait_s=60.0,
    max_deliver=-1,
)
DELAYS_S = (1.0, 5.0, 30.0, 120.0, 300.0)


class NotTold(Exception):
    """The webhook or the command did not take an alarm; it is told again after a growing delay."""


def told(one: Recorded) -> dict[str, Any]:
    """What a webhook or command gets: the alarm's fields, `state` raised or cleared, and where it stands in the log."""
    state = "raised" if isinstance(one.fact, AlarmRaised) else "cleared"
    return {"state": state, "sequence": one.sequence, "at": one.at.isoformat(), **one.fact.model_dump(mode="json")}


async def tell(shell: Any) -> None:
    """Reads alarms for ever, in the log's order; one is acknowledged only once everybody was told."""
    async for message in pulled(shell, TELLER, 10, "alarms"):
        await _settle(shell, message)


async def _settle(shell: Any, message: Msg) -> None:
    attempt = message.metadata.num_delivered
    try:
        meta = message.metadata
        headers = dict(message.headers or {})
        one = recorded(meta.sequence.stream, message.subject, headers, message.data, meta.timestamp)
    except Permanent as error:
        shell.log.error("an alarm was not understood", subject=message.subject, error=str(error))
        await message.term()
        return
    body = told(one)
    if attempt == 1:
        _log(shell.log, body)
    try:
        await _everybody(shell.settings, body)
    except NotTold as error:
        delay = DELAYS_S[min(attempt, len(DELAYS_S)) - 1]
        shell.log.error(
            "an alarm could not be told", alarm=body["alarm"], error=str(error), attempt=attempt, again_s=delay
        )
        with contextlib.suppress(*TROUBLE):
            await message.nak(delay=delay)
        return
    with contextlib.suppress(*TROUBLE):
        await message.ack()


def _log(log: Any, body: dict[str, Any]) -> None:
    fields = {name: body[name] for name in ("alarm", "about", "text", "remedy", "sequence") if name in body}
    if body["state"] == "cleared":
        log.info("alarm cleared", **fields)
    elif body["severity"] == "critical":
        log.error("alarm", **fields)
    else:
        log.warning("alarm", **fields)


async def _everybody(settings: Any, body: dict[str, Any]) -> None:
    """Raises NotTold when one of them did not take it."""
    text = json.dumps(body).encode()
    if settings.webhook_url:
        await asyncio.to_thread(post, settings.webhook_url, text, f"alarm-{body['sequence']}", settings.alarm_timeout_s)
    if settings.alarm_command:
        await run_command(settings.alarm_command, text, settings.alarm_timeout_s)


def post(url: str, body: bytes, key: str, timeout_s: float) -> None:
    """A JSON POST; `Idempotency-Key` is the same when it is repeated. Raises NotTold for anything but a 2xx answer."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": key, "User-Agent": "sparring-health"}
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            answer.read()
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise NotTold(f"webhook_url = {url}: {error}") from error


async def run_command(command: str, body: bytes, timeout_s: float) -> None:
    """The command with the alarm on its standard input. Raises NotTold when it fails or takes too long."""
    try:
        process = await asyncio.create_subprocess_exec(
            *shlex.split(command), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise NotTold(f"alarm_command = {command!r} could not be started: {error}") from error
    try:
        async with asyncio.timeout(timeout_s):
            _, said = await process.communicate(body)
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise NotTold(f"alarm_command = {command!r} took longer than {timeout_s:.0f} s") from error
    if process.returncode:
        raise NotTold(
            f"alarm_command = {command!r} ended with {process.returncode}: {said.decode(errors='replace')[-200:]}"
        )
