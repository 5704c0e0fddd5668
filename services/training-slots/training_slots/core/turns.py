"""Whose turn it is: by priority, then age, and no lane twice before a waiting one once."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sparring.contracts.training_slots import SlotClaimed
from training_slots.core.state import Pool, Waiting


def hand_over(pool: Pool, now: datetime, slots: int) -> list[SlotClaimed]:
    """Serves waiting claims while a slot is free."""
    held = set(pool.held)
    waiting, served = list(pool.queue), list[SlotClaimed]()
    while len(held) < slots:
        turn = next_turn(pool, [one for one in waiting if one.lane not in held], now)
        if turn is None:
            break
        waiting.remove(turn)
        held.add(turn.lane)
        served.append(
            SlotClaimed(
                lane=turn.lane, holder=turn.holder, until=now + timedelta(seconds=turn.lease_s),
                waited_s=max(0.0, (now - turn.since).total_seconds()), held=len(held), limit=slots,
            )
        )  # fmt: skip
    return served


def next_turn(pool: Pool, waiting: Iterable[Waiting], now: datetime) -> Waiting | None:
    """The claim to serve, of those whose lane is free and may train now.

    A lane that had a slot since another one began to wait steps back, whatever its priority: so a claim is overtaken by
    every other lane at most once. A lane began to wait at its oldest claim, or when its last slot ended.
    """
    ready = [one for one in waiting if pool.rests_until(one.lane, now) is None]
    began: dict[str, int] = {}
    for one in ready:
        began[one.lane] = min(began.get(one.lane, one.sequence), one.sequence)
    for lane, oldest in began.items():
        began[lane] = max(oldest, pool.trained_until(lane))

    def key(one: Waiting) -> tuple[bool, int, datetime, str]:
        last = pool.trained_until(one.lane)
        again = any(last > since for lane, since in began.items() if lane != one.lane)
        return again, -one.priority, one.since, one.holder

    return min(ready, key=key, default=None)


def position(pool: Pool, claim: Waiting, now: datetime) -> int:
    """How many claims are served before this one if nothing else changes; 0 is next. Claims that rest come last."""
    left = list(pool.queue)
    place = 0
    while left:
        turn = next_turn(pool, left, now)
        if turn is None or turn is claim:
            break
        left.remove(turn)
        place += 1
    return place
