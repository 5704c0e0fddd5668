"""The keeper: turns what the server says about given-up messages into letters, and brings redriven ones on their way."""

from __future__ import annotations

import json
from typing import Any

from nats.aio.msg import Msg
from nats.js.errors import APIError, KeyNotFoundError, NotFoundError

from health.core.letter import fingerprint
from health.pulling import TROUBLE, pulled
from sparring.contracts.health import RecordDeadLetter, ReportRedriven
from sparring.dispatch import ATTEMPT, FORCED, KEPT, LETTER
from sparring.streams import ADVISORIES, COMMANDS, DLQ, FAILURES, Durable
from sparring.subjects import retry_subject, without_retry

KEEPER = Durable("dead-letter-keeper", ADVISORIES, ("$JS.EVENT.ADVISORY.CONSUMER.>",), max_deliver=-1)
RETRY = "-retry"


async def keep(shell: Any) -> None:
    """Reads advisories for ever; one is acknowledged only once its letter is in the log's hands."""
    async for message in pulled(shell, KEEPER, 20, "advisories"):
        try:
            await _advised(shell, message)
            await message.ack()
        except TROUBLE as error:
            shell.log.warning("an advisory waits", error=repr(error))
            await message.nak(delay=5)


async def _advised(shell: Any, message: Msg) -> None:
    advisory = json.loads(message.data)
    terminated = advisory["type"].endswith(".terminated")
    await record_letter(
        shell,
        advisory["stream"],
        advisory["consumer"],
        int(advisory["stream_seq"]),
        cause="terminated" if terminated else "max_deliver",
        deliveries=int(advisory.get("deliveries", 0)),
        reason=advisory.get("reason", ""),
    )


async def record_letter(
    shell: Any, stream: str, consumer: str, sequence: int, *, cause: str, deliveries: int, reason: str = ""
) -> None:
    """Copies the original to the DLQ, exactly once for ever, and orders its letter to be recorded."""
    try:
        original = await shell.js.get_msg(stream, sequence)
    except NotFoundError:
        shell.log.error("a message was given up and is gone", stream=stream, consumer=consumer, sequence=sequence)
        return
    if consumer.endswith(RETRY):
        await _failed_again(shell, dict(original.headers or {}), reason)
        return
    failure = await failure_of(shell, f"{stream}.{consumer}.{sequence}")
    headers = {f"{KEPT}{name}": value for name, value in (original.headers or {}).items()}
    exception = str(failure.get("type") or "Unknown")
    why = str(failure.get("message") or reason or "no handler answered in time")
    headers |= {
        "Sparring-Consumer": consumer,
        "Sparring-Subject": original.subject,
        "Sparring-Reason": why.replace("\n", " ")[:500],
        "Sparring-Exception": exception,
        "Sparring-Trace": str(failure.get("trace") or ""),
        "Nats-Expected-Last-Subject-Sequence": "0",
    }
    try:
        await shell.js.publish(f"dlq.{consumer}.{stream}.{sequence}", original.data or b"", headers=headers, stream=DLQ)
    except APIError as error:
        # 10071: it is there already
        if error.err_code != 10071:
            raise
    order = RecordDeadLetter(
        letter=f"{consumer}-{stream}-{sequence}",
        consumer=consumer,
        stream=stream,
        stream_sequence=sequence,
        subject=original.subject,
        message_type=(original.headers or {}).get("ce-type") or "unknown",
        cause=cause,
        transient=bool(failure.get("transient", True)),
        reason=why[:1000],
        exception=exception,
        fingerprint=fingerprint(consumer, exception, why),
        deliveries=deliveries or int(failure.get("attempt") or 0),
        trace=str(failure.get("trace") or ""),
        build=str(failure.get("build") or ""),
    )
    await shell.send(order, key=f"letter-{order.letter}")


async def _failed_again(shell: Any, headers: dict[str, str], reason: str) -> None:
    """A redriven letter is a letter already. Its consumer says what became of it, unless it died each time."""
    letter, attempt = headers.get(LETTER, ""), int(headers.get(ATTEMPT, "1"))
    if letter:
        why = reason or "no handler answered in time"
        order = ReportRedriven(letter=letter, attempt=attempt, recovered=False, reason=why[:500])
        await shell.send(order, key=f"redriven-{letter}-{attempt}-False")


async def failure_of(shell: Any, key: str) -> dict[str, Any]:
    try:
        entry = await (await shell.js.key_value(FAILURES)).get(key)
        return dict(json.loads(entry.value or b"{}"))
    except (KeyNotFoundError, ValueError):
        return {}


async def redrive(shell: Any) -> None:
    """Publishes each redriven letter to the twin of the consumer that failed; the message id makes it once."""
    sent: set[tuple[str, int]] = set()
    while not shell.stopping.is_set():
        if shell.leads:
            for name, letter in list(shell.picture.all.letters.items()):
                if letter.state != "redriven" or (name, letter.redrives) in sent:
                    continue
                try:
                    await _redrive(shell, name, letter)
                    sent.add((name, letter.redrives))
                except TROUBLE as error:
                    shell.log.warning("a letter could not be redriven yet", letter=name, error=repr(error))
        await shell.pause(0.5)


async def _redrive(shell: Any, name: str, letter: Any) -> None:
    kept = await shell.js.get_last_msg(DLQ, f"dlq.{letter.consumer}.{letter.stream}.{letter.stream_sequence}")
    headers = {key.removeprefix(KEPT): value for key, value in (kept.headers or {}).items() if key.startswith(KEPT)}
    headers = {key: value for key, value in headers.items() if not key.startswith("Nats-")}
    headers |= {
        LETTER: name,
        ATTEMPT: str(letter.redrives),
        FORCED: "yes" if letter.forced else "no",
        "Nats-Msg-Id": f"{name}-{letter.redrives}",
        "Sparring-Original-Stream": letter.stream,
        "Sparring-Original-Sequence": str(letter.stream_sequence),
    }
    subject = retry_subject(letter.consumer, without_retry(letter.subject))
    await shell.js.publish(subject, kept.data or b"", headers=headers, stream=COMMANDS)
