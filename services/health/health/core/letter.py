"""A dead letter: pending, redriven, recovered, abandoned or discarded; never deleted."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from sparring.contracts.base import Fact
from sparring.contracts.health import (
    DeadLetterAbandoned,
    DeadLetterDiscarded,
    DeadLetterFailedAgain,
    DeadLetterOrderRefused,
    DeadLetterRecorded,
    DeadLetterRecovered,
    DeadLetterRedriven,
    DiscardDeadLetter,
    Letter,
    RecordDeadLetter,
    RedriveDeadLetter,
    ReportRedriven,
)
from sparring.decider import Context, Decider, Recorded, replace

FIRST_S, MOST_S, TRIES = 60.0, 3600.0, 5
# as long as COMMANDS keeps the redriven order
UNREPORTED = timedelta(days=14)
OPEN = ("pending", "redriven", "abandoned")


@dataclass(frozen=True)
class DeadLetter:
    """`redrives` counts every redrive; the letter's own schedule ends after five. `build` failed to handle it last."""

    state: Letter | None = None
    consumer: str = ""
    stream: str = ""
    stream_sequence: int = 0
    subject: str = ""
    transient: bool = False
    redrives: int = 0
    due_at: datetime | None = None
    forced: bool = False
    exception: str = ""
    build: str = ""
    redriven_at: datetime | None = None


def evolve(letter: DeadLetter, recorded: Recorded) -> DeadLetter:
    match recorded.fact:
        case DeadLetterRecorded() as fact:
            return DeadLetter("pending", fact.consumer, fact.stream, fact.stream_sequence, fact.subject, fact.transient,
                              0, fact.due_at, exception=fact.exception, build=fact.build)  # fmt: skip
        case DeadLetterRedriven() as fact:
            return replace(letter, state="redriven", redrives=fact.attempt, due_at=None, forced=fact.forced,
                           redriven_at=recorded.at, build=fact.build or letter.build)  # fmt: skip
        case DeadLetterRecovered():
            return replace(letter, state="recovered", due_at=None)
        case DeadLetterFailedAgain(due_at=due_at):
            return replace(letter, state="pending", due_at=due_at)
        case DeadLetterAbandoned():
            return replace(letter, state="abandoned", due_at=None)
        case DeadLetterDiscarded():
            return replace(letter, state="discarded", due_at=None)
    return letter


LETTER = Decider("health", "dead-letter", DeadLetter(), evolve, closed=lambda one: one.state not in (None, *OPEN))


def delay_s(redrives: int) -> float:
    """60·2ⁿ seconds, at most an hour."""
    return min(MOST_S, FIRST_S * 2.0**redrives)


def fingerprint(consumer: str, exception: str, message: str) -> str:
    """Letters of one cause have one fingerprint: numbers, hashes and ids are left out of the message."""
    same = re.sub(r"[0-9a-fA-F]{8,}|\d+", "#", message)
    return hashlib.sha256(f"{consumer}|{exception}|{same}".encode()).hexdigest()[:12]


def record(order: RecordDeadLetter, letter: DeadLetter, ctx: Context) -> list[Fact]:
    """Once, however often the advisory and the reconciliation find it."""
    if letter.state is not None:
        return []
    due_at = ctx.now + timedelta(seconds=delay_s(0)) if order.transient else None
    return [DeadLetterRecorded(**order.model_dump(), due_at=due_at)]


def redrive(order: RedriveDeadLetter, letter: DeadLetter, ctx: Context) -> list[Fact]:  # noqa: ARG001
    """By hand, at any time while the letter is open; recovered and discarded ones only with force."""
    if letter.state is None or (letter.state not in OPEN and not order.force):
        reason = "no such letter" if letter.state is None else f"it is {letter.state}; --force redrives it all the same"
        return [DeadLetterOrderRefused(letter=order.letter, order="RedriveDeadLetter", reason=reason)]
    return [
        DeadLetterRedriven(
            letter=order.letter, by=order.by, attempt=letter.redrives + 1, due_at=None, forced=order.force
        )
    ]


def report(order: ReportRedriven, letter: DeadLetter, ctx: Context) -> list[Fact]:
    """What became of the newest redrive; a success counts also when it was given up for lost before."""
    if letter.state not in OPEN or order.attempt != letter.redrives:
        return []
    if order.recovered:
        return [DeadLetterRecovered(letter=order.letter)]
    if letter.state != "redriven":
        return []
    return failed_again(order.letter, letter, ctx.now, order.reason)


def failed_again(name: str, letter: DeadLetter, now: datetime, reason: str) -> list[Fact]:
    """A transient letter is due later, or abandoned after its last try; a permanent one waits for a person or a build."""
    over = letter.transient and letter.redrives >= TRIES
    due_at = now + timedelta(seconds=delay_s(letter.redrives)) if letter.transient and not over else None
    again = DeadLetterFailedAgain(letter=name, reason=reason, attempt=letter.redrives, due_at=due_at)
    return [again, DeadLetterAbandoned(letter=name, attempts=letter.redrives)] if over else [again]


def unreported(name: str, letter: DeadLetter, now: datetime) -> list[Fact]:
    """A redriven letter of which nothing was heard while the server kept its order has failed: none waits for ever."""
    if letter.state != "redriven" or letter.redriven_at is None or now - letter.redriven_at < UNREPORTED:
        return []
    return failed_again(name, letter, now, f"nobody reported on it for {UNREPORTED.days} days")


def discard(order: DiscardDeadLetter, letter: DeadLetter, ctx: Context) -> list[Fact]:  # noqa: ARG001
    if letter.state not in OPEN:
        reason = "no such letter" if letter.state is None else f"it is {letter.state}"
        return [DeadLetterOrderRefused(letter=order.letter, order="DiscardDeadLetter", reason=reason)]
    return [DeadLetterDiscarded(letter=order.letter, by=order.by, reason=order.reason)]
