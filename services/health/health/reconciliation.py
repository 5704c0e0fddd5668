"""Finds what an advisory lost: advisories are fire-and-forget, and a process that dies says nothing at all."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nats.js.api import ConsumerInfo, RawStreamMsg
from nats.js.errors import NoKeysError, NotFoundError

from health.consumers import durables
from health.core.letter import LETTER
from health.dead_letters import RETRY, failure_of, record_letter
from health.pulling import TROUBLE
from sparring.log.jetstream import JetStreamLog
from sparring.streams import FAILURES
from sparring.subjects import class_of, without_retry

# well above the handlers' time and the server's wait for an answer
UNANSWERED_S = 180.0
# how many messages behind one silent one are looked at
MOST_LOOKED_AT = 200


async def reconcile(shell: Any) -> None:
    """Every minute, in the leading replica: what was given up in `FAILURES`, and what was given up in silence."""
    known = Known()
    while not shell.stopping.is_set():
        if shell.leads:
            try:
                await _by_failures(shell, known)
                await _by_consumers(shell, known)
            except TROUBLE as error:
                shell.log.warning("the reconciliation of failures waits", error=repr(error))
        await shell.pause(shell.settings.reconcile_s)


@dataclass(frozen=True)
class Held:
    """The oldest message that a consumer has in hand, and since when it was seen there (monotonic seconds)."""

    sequence: int
    first_seen: float
    last_seen: float


class Known:
    """What earlier rounds saw: keys that need nothing any more, oldest messages in hand, windows without hands."""

    def __init__(self) -> None:
        self.settled: set[str] = set()
        self.held: dict[str, Held] = {}
        self.idle: dict[str, tuple[int, int]] = {}


def lost(failure: Mapping[str, Any], now: datetime) -> bool:
    """Said so by its handler, or its last attempt began long ago and nobody said how it ended."""
    if failure.get("given_up"):
        return True
    began = failure.get("last_attempt_at")
    return began is not None and (now - datetime.fromisoformat(began)).total_seconds() > UNANSWERED_S


async def _by_failures(shell: Any, known: Known) -> None:
    bucket = await shell.js.key_value(FAILURES)
    try:
        keys = await bucket.keys()
    except NoKeysError:
        return
    for key in set(keys) - known.settled:
        stream, consumer, sequence = key.rsplit(".", 2)
        if lost(await failure_of(shell, key), shell.now()):
            await _make_sure(shell, stream, consumer, int(sequence))
            known.settled.add(key)


async def _make_sure(shell: Any, stream: str, consumer: str, sequence: int, *, deliveries: int = 0) -> None:
    """Records the letter unless the log has it."""
    if not consumer.endswith(RETRY) and await shell.store.exists(LETTER, f"{consumer}-{stream}-{sequence}"):
        return
    await record_letter(shell, stream, consumer, sequence, cause="reconciled", deliveries=deliveries)


async def _by_consumers(shell: Any, known: Known) -> None:
    """Nothing is in hand, and yet the floor of acknowledgements lies below what was delivered: that message is lost.

    The next acknowledgement moves the floor past it, so the oldest message in hand is remembered, too: when it is gone
    after all its deliveries' time and no handler ever said a word about it, it was given up.
    """
    async for info in durables(shell):
        key = f"{info.stream_name}.{info.name}"
        floor = int(info.ack_floor.stream_seq) if info.ack_floor else 0
        delivered = int(info.delivered.stream_seq) if info.delivered else 0
        in_hand = int(info.num_ack_pending or 0)
        await _past_its_time(shell, known, info, floor, in_hand)
        if in_hand or floor >= delivered:
            known.idle.pop(key, None)
            continue
        if known.idle.get(key) == (floor, delivered):
            await _silent(shell, info, floor, delivered)
        known.idle[key] = floor, delivered


async def _past_its_time(shell: Any, known: Known, info: ConsumerInfo, floor: int, in_hand: int) -> None:
    key, now = f"{info.stream_name}.{info.name}", time.monotonic()
    held = known.held.get(key)
    if held is not None and (in_hand == 0 or floor >= held.sequence):
        del known.held[key]
        life_s = max(1, (info.config.max_deliver or 5) - 2) * float(info.config.ack_wait or 60.0)
        failure = await failure_of(shell, f"{key}.{held.sequence}")
        if held.last_seen - held.first_seen >= life_s and not failure:
            await _make_sure(shell, info.stream_name, info.name, held.sequence)
    if in_hand == 0 or (info.config.max_deliver or -1) < 0:
        return
    oldest = await _next(shell, info, floor + 1)
    if oldest is not None and oldest.seq is not None:
        first = held.first_seen if held is not None and held.sequence == oldest.seq else now
        known.held[key] = Held(oldest.seq, first, now)


async def _silent(shell: Any, info: ConsumerInfo, floor: int, delivered: int) -> None:
    """The first message above the floor was certainly given up; those behind it when they had no effect."""
    first = True
    async for message in _window(shell, info, floor, delivered):
        assert message.seq is not None
        if first or not await _had_effect(shell, message):
            await _make_sure(shell, info.stream_name, info.name, message.seq)
        first = False


async def _window(shell: Any, info: ConsumerInfo, floor: int, delivered: int) -> AsyncIterator[RawStreamMsg]:
    sequence = floor + 1
    for _ in range(MOST_LOOKED_AT):
        message = await _next(shell, info, sequence)
        if message is None or message.seq is None or message.seq > delivered:
            return
        yield message
        sequence = message.seq + 1


async def _next(shell: Any, info: ConsumerInfo, sequence: int) -> RawStreamMsg | None:
    """The consumer's next message at or after the sequence."""
    filters = list(info.config.filter_subjects or ()) or [info.config.filter_subject or ">"]
    found: list[RawStreamMsg] = []
    for one in filters:
        try:
            found.append(await shell.js.get_msg(info.stream_name, seq=sequence, subject=one, next=True))
        except NotFoundError:
            continue
    return min(found, key=lambda message: message.seq or 0, default=None)


async def _had_effect(shell: Any, message: RawStreamMsg) -> bool:
    """Whether a fact names the order; a reaction's effect can't be seen, and repeating one changes nothing."""
    subject = without_retry(message.subject or "")
    cls, id = class_of(subject), (message.headers or {}).get("ce-id", "")
    if not subject.startswith("cmd.") or cls is None or not id:
        return not subject.startswith("cmd.")
    pattern = "evt." + subject.split(".", 1)[1].rsplit(".", 1)[0] + ".>"
    raws = await JetStreamLog(shell.nc).load(pattern)
    return any(raw.headers.get("Sparring-Order") == id for raw in raws)
