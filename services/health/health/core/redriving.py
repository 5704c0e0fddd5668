"""Which letters go to their consumers again by themselves, and which need a person."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from health.core.letter import LETTER, TRIES, DeadLetter, unreported
from sparring.contracts.base import Fact
from sparring.contracts.health import DeadLetterRedriven
from sparring.contracts.readings import Consumers, ServiceBeat, Stalled
from sparring.decider import Action, Append, Context
from sparring.subjects import Ref

ROUND_S = 60.0
FRESH_S = 15.0
# an order whose time is over stays over, whatever is deployed
NOT_BY_A_BUILD = ("Expired",)


def build_of(beat: ServiceBeat) -> str:
    """What a replica runs: its version and the messages that it knows."""
    return f"{beat.build} {beat.contracts}"


def builds(ctx: Context) -> dict[str, set[str]]:
    """What each service's replicas run now."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for one in ctx.readings.values():
        if isinstance(one.data, ServiceBeat) and one.age_s < FRESH_S:
            found[one.data.service].add(build_of(one.data))
    return found


def builds_behind(consumer: str, known: Mapping[str, set[str]]) -> set[str]:
    """The builds of the service whose consumer it is: `sync`, `sync-reactions`."""
    names = [name for name in known if consumer == name or consumer.startswith(f"{name}-")]
    return known[max(names, key=len)] if names else set()


def redrives(ctx: Context, letters: Mapping[str, DeadLetter]) -> Iterable[Action]:
    """What is due: at most ten per consumer under way in a minute, the longest due first.

    What recovers makes room at once; what fails again waits twice as long, so that nothing stands at a head of line.
    """
    most = ctx.settings.redrives_a_round
    since = ctx.now - timedelta(seconds=ROUND_S)
    spent = Counter(one.consumer for one in letters.values() if one.redriven_at is not None and one.redriven_at > since)
    for name, letter in letters.items():
        if facts := unreported(name, letter, ctx.now):
            yield _append(name, letter, facts)
    known = builds(ctx)
    waiting = [(one.due_at or ctx.now, name, one) for name, one in letters.items() if one.state == "pending"]
    for _, name, letter in sorted(waiting, key=lambda one: one[:2]):
        facts = due(name, letter, ctx.now, builds_behind(letter.consumer, known))
        if not facts or spent[letter.consumer] >= most:
            continue
        spent[letter.consumer] += 1
        yield _append(name, letter, facts)


def _append(name: str, seen: DeadLetter, facts: Sequence[Fact]) -> Append:
    ref = LETTER.ref(name)

    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        now: DeadLetter = states[ref]
        return facts if (now.state, now.redrives) == (seen.state, seen.redrives) else []

    return Append([(LETTER, name)], decide)


def due(name: str, letter: DeadLetter, now: datetime, running: set[str]) -> list[Fact]:
    """A transient letter goes when its time has come; a permanent one once for each new build of its consumer."""
    if letter.state != "pending":
        return []
    if letter.transient:
        if letter.due_at is None or now < letter.due_at:
            return []
        reason, build = f"due after {letter.redrives} of {TRIES} tries", ""
    else:
        fresh = running - {letter.build}
        if not letter.build or not fresh or letter.build in running or letter.exception in NOT_BY_A_BUILD:
            return []
        build = min(fresh)
        reason = f"the consumer runs a new build: {build}"
    return [
        DeadLetterRedriven(
            letter=name, by="health", attempt=letter.redrives + 1, due_at=None, reason=reason, build=build
        )
    ]


def stalled(ctx: Context) -> Iterable[Stalled]:
    """Consumers that stand still for too long, by the newest look at them."""
    looks = [one for one in ctx.readings.values() if isinstance(one.data, Consumers) and one.age_s < FRESH_S]
    newest = min(looks, key=lambda one: one.age_s, default=None)
    if newest is not None:
        yield from (one for one in newest.data.stalled if one.for_s >= ctx.settings.stalled_s)


def abandoned(letters: Mapping[str, DeadLetter]) -> dict[str, int]:
    """Letters that were tried as often as they may be, by consumer: a person decides."""
    return Counter(one.consumer for one in letters.values() if one.state == "abandoned")
