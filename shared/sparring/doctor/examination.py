"""All checks, one after the other; what may not be read is a finding, and the others go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from sparring.catalogue import services
from sparring.doctor import server
from sparring.doctor.finding import Finding
from sparring.doctor.processes import MOST_SKEW_S, Beat, processes
from sparring.doctor.wiring import unwired
from sparring.envelope import foreign
from sparring.errors import LogUnavailable, Permanent
from sparring.hearing import heard
from sparring.invariants import Watch
from sparring.log.archived import ArchivedLog
from sparring.log.guards import GuardCheck
from sparring.log.interface import Log, until
from sparring.log.jetstream import JetStreamLog
from sparring.readings import stored
from sparring.streams import TELEMETRY

TROUBLE = (nats.errors.Error, JetStreamError, LogUnavailable, TimeoutError, OSError)
Check = Callable[["Examination"], AsyncIterator[Finding]]


@dataclass
class Examination:
    """A connection to look through. `monitoring` is the server's HTTP address; `refused` is where the connection's
    `error_cb` writes down what this user may not do."""

    nc: Client
    monitoring: str = ""
    refused: list[str] = field(default_factory=list)
    timeout_s: float = 5.0

    @property
    def js(self) -> Any:
        return self.nc.jetstream(timeout=self.timeout_s)


async def examine(look: Examination, *, log: bool = False) -> list[Finding]:
    """Every finding, the worst first; with `log` the invariants over the whole log, too."""
    checks: list[tuple[str, Check]] = [
        ("wiring", _wiring), ("streams", _streams), ("consumers", _consumers), ("storage", _storage),
        ("services and nodes", _processes), ("clock", _clock),
    ]  # fmt: skip
    if log:
        checks.append(("log", _invariants))
    found: list[Finding] = []
    for about, check in checks:
        try:
            found += [one async for one in check(look)]
        except NotFoundError:
            found.append(
                Finding("critical", about, "what it looks at is missing", "start any service: it declares the topology")
            )
        except TROUBLE as error:
            found.append(_unreadable(about, error, look))
    order = {"critical": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda one: order[one.severity])


def _unreadable(about: str, error: Exception, look: Examination) -> Finding:
    if look.refused:
        refused, look.refused[:] = look.refused[-1], []
        return Finding("warning", about, f"was not examined: {refused}", "run `spar doctor` as a user who may do that")
    return Finding("warning", about, f"was not examined: {error!r}", "is the server overloaded? ask again")


async def _wiring(_: Examination) -> AsyncIterator[Finding]:
    for one in unwired(services()):
        yield one


async def _streams(look: Examination) -> AsyncIterator[Finding]:
    async for one in server.streams(look.js):
        yield one


async def _consumers(look: Examination) -> AsyncIterator[Finding]:
    async for one in server.consumers(look.js):
        yield one


async def _storage(look: Examination) -> AsyncIterator[Finding]:
    for finding in server.payload(look.nc.max_payload):
        yield finding
    monitored = await asyncio.to_thread(_monitored, look.monitoring) if look.monitoring else {}
    if look.monitoring and not monitored:
        yield Finding("warning", f"server {look.monitoring}", "does not answer: its disk and memory were not looked at",
                      "give its HTTP address, e.g. --monitoring http://127.0.0.1:8222")  # fmt: skip
    async for one in server.storage(look.js, monitored):
        yield one


def _monitored(address: str) -> dict[str, Any]:
    """What the server says of itself on its HTTP port; nothing where that is closed."""
    found = {}
    for page in ("jsz", "varz"):
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(f"{address}/{page}", timeout=2) as answer:
            found[page] = json.load(answer)
    return found


async def _processes(look: Examination) -> AsyncIterator[Finding]:
    end = await JetStreamLog(look.nc, timeout_s=look.timeout_s).end()
    names = [one.name for one in services()]
    planning = [one.name for one in services() if one.plan is not None]
    for one in processes([one async for one in beats(look.nc)], names, planning, end):
        yield one


async def beats(nc: Client) -> AsyncIterator[Beat]:
    """The last beat of every service and node."""
    now = datetime.now(UTC)
    for _, data, at in await stored(nc, "tel.*.heartbeat"):
        yield Beat(data, at, max(0.0, (now - at).total_seconds()))


async def _clock(look: Examination) -> AsyncIterator[Finding]:
    """The server stamps a reading of ours: half a round trip is the doubt."""
    before = datetime.now(UTC)
    ack = await look.js.publish("tel.spar-doctor.clock", b"{}")
    after = datetime.now(UTC)
    stored = await look.js.get_msg(TELEMETRY, ack.seq)
    skew = (stored.time - before - (after - before) / 2).total_seconds() if stored.time else 0.0
    if abs(skew) > MOST_SKEW_S:
        yield Finding(
            "warning",
            "clock",
            f"this machine's and the server's differ by {skew:+.1f} s",
            "run a time service (chrony)",
        )


async def _invariants(look: Examination) -> AsyncIterator[Finding]:
    log = ArchivedLog(look.nc)
    async for one in broken_invariants(log, await log.end()):
        yield one


async def broken_invariants(log: Log, end: int) -> AsyncIterator[Finding]:
    """What must hold over any log, from its first fact to that sequence; one pass, whatever its length."""
    watch, guards = Watch(), GuardCheck()
    async for batch in until(log, end):
        for raw in batch:
            for text in _broken(watch, guards, raw):
                yield Finding(
                    "critical", "log", text, "see the facts around it: `spar events --since SEQ`; its owner has a bug"
                )


def _broken(watch: Watch, guards: GuardCheck, raw: Any) -> Iterator[str]:
    for text in guards.take([raw]):
        yield f"AppendsAreGuarded: {text}"
    if foreign(raw.subject, raw.headers):
        yield f"IsAFact: {raw.sequence}: {raw.subject} was published past the services; nobody folds it"
    try:
        one = heard(raw)
    except Permanent as error:
        yield f"Decodes: {raw.sequence}: {error}"
        return
    if one is not None:
        yield from watch.apply(one)
