"""Whatever a handler does wrong ends as a dead letter, once, with its reason; mended and redriven, the end is as without."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from sparring import clock
from sparring.contracts.health import (
    AlarmRaised,
    DeadLetterDiscarded,
    DeadLetterRecorded,
    DeadLetterRecovered,
    DeadLetterRedriven,
    RedriveDeadLetter,
    ThresholdMoved,
)
from sparring.decider import Recorded
from sparring.envelope import Envelope, encode, encode_order
from sparring.hearing import heard
from sparring.log import JetStreamLog
from sparring.log.interface import Raw
from sparring.server import EmbeddedServer
from sparring.streams import ADVISORIES, COMMANDS, DLQ, EVENTS, TELEMETRY, service_durables
from sparring.testing import eventually
from sparring.testing.processes import Replica, app_of
from sparring.topology import declare_durable, declare_topology

PROBE = f"{Path(__file__).with_name('probe.py')}:SERVICE"
NAME = "ext-probe"


@dataclass
class Place:
    """A server, health, and the service that misbehaves."""

    nc: Client
    url: str
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    replicas: list[Replica] = field(default_factory=list)

    def start(self, where: str, **environ: str) -> Replica:
        one = Replica(where, self.url, self.folder / "data", str(len(self.replicas)), environ=self.environ | environ)
        self.replicas.append(one.start())
        return one

    async def poke(self, thing: str, mode: str, *, version: int = 1, body: bytes | None = None) -> None:
        """The order, as a producer of that version writes it."""
        data = {"thing": thing, "mode": mode} | ({"because": "told"} if version > 1 else {})
        trace = f"00-{'ab' * 16}-{'cd' * 8}-01"
        headers = {"ce-id": f"poke-{thing}", "Nats-Msg-Id": f"poke-{thing}", "ce-type": "Poke", "traceparent": trace,
                   "ce-dataschema": f"{NAME}/Poke.v{version}", "ce-time": clock.now().isoformat()}  # fmt: skip
        text = json.dumps(data).encode() if body is None else body
        await self.nc.jetstream(timeout=5).publish(
            f"cmd.{NAME}.thing.{thing}.Poke", text, headers=headers, stream=COMMANDS
        )

    async def poked(self) -> list[Raw]:
        return [
            raw
            for raw in await JetStreamLog(self.nc).load(f"evt.{NAME}.>")
            if raw.subject.endswith((".Poked", ".Echoed"))
        ]

    async def things(self, count: int, name: str = "Poked", within_s: float = 40) -> list[str]:
        async def look() -> list[str]:
            found = [raw.subject.split(".")[3] for raw in await self.poked() if raw.subject.endswith(name)]
            return found if len(found) >= count else []

        return await eventually(look, within_s=within_s, every_s=0.1, what=f"{count} × {name}")

    async def facts(self, kind: type, count: int = 1, within_s: float = 60) -> list[Any]:
        async def look() -> list[Recorded]:
            raws = await JetStreamLog(self.nc).load("evt.health.>")
            found = [one.fact for raw in raws if (one := heard(raw)) is not None and isinstance(one.fact, kind)]
            return found if len(found) >= count else []

        return await eventually(look, within_s=within_s, every_s=0.1, what=f"{count} × {kind.__name__}")

    async def order(self, order: Any, id: str) -> None:
        subject, headers, body = encode_order(order, id, now=clock.now(), source="test")
        await self.nc.jetstream(timeout=5).publish(subject, body, headers=headers, stream=COMMANDS)

    def spar(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "sparring.cli", *words, "--nats", self.url]
        environ = {
            **os.environ,
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "XDG_STATE_HOME": str(self.folder / "state"),
        }
        return subprocess.run(argv, capture_output=True, text=True, env=environ, timeout=60)


@contextlib.asynccontextmanager
async def place(
    server: EmbeddedServer, folder: Path, *, ack_wait_s: float = 10.0, ordered: bool = False
) -> AsyncIterator[Place]:
    assert server.address is not None
    nc = await nats.connect(server.address.url)
    await declare_topology(nc)
    for durable in service_durables(NAME, (f"evt.{NAME}.thing.*.Poked",), ordered=ordered):
        await declare_durable(nc.jetstream(), replace(durable, ack_wait_s=ack_wait_s))
    one = Place(nc, server.address.url, folder)
    try:
        yield one
    finally:
        for replica in one.replicas:
            replica.kill()
        await nc.close()


def by_thing(letters: Sequence[Any]) -> dict[str, Any]:
    return {one.subject.split(".")[3]: one for one in letters}


@pytest.mark.timeout(180)
async def test_every_sort_of_failure_is_a_letter_once_with_its_reason(server: EmbeddedServer, tmp_path: Path) -> None:
    async with place(server, tmp_path) as one:
        one.start(app_of("health"))
        one.start(PROBE)
        await one.poke("t-raises", "raises")
        await one.poke("t-refuses", "refuses")
        await one.poke("t-undecodable", "", body=b"\x00 no json")
        await one.poke("t-schema", "", body=b'{"thing": 5}')
        await one.poke("t-newer", "fine", version=9)
        await one.poke("t-reaction", "breaks the reaction")
        await one.poke("t-hangs", "hangs")
        await one.nc.jetstream().publish(f"cmd.{NAME}.thing.t-unknown.NoSuchOrder", b"{}", headers={"ce-id": "unknown"})
        for number in range(10):
            await one.poke(f"healthy{number}", "fine")
        # ten healthy ones behind eight sick ones, two of which take all their attempts
        done = await one.things(11, within_s=20)
        assert {name for name in done if name.startswith("healthy")} == {f"healthy{number}" for number in range(10)}
        letters = by_thing(await one.facts(DeadLetterRecorded, 8))
        wanted = {"t-raises": "ValueError", "t-refuses": "Refused", "t-undecodable": "Undecodable", "t-schema": "Undecodable",
                  "t-newer": "NewerVersion", "t-reaction": "ValueError", "t-hangs": "HandlerTimeout",
                  "t-unknown": "UnknownMessage"}  # fmt: skip
        assert {thing: letter.exception for thing, letter in letters.items()} == wanted
        assert {thing for thing, letter in letters.items() if letter.transient} == {"t-raises", "t-hangs", "t-reaction"}
        assert letters["t-raises"].deliveries == 5
        assert "a bug in the handler" in letters["t-raises"].reason
        assert "upgrade" in letters["t-newer"].reason
        assert letters["t-reaction"].consumer == f"{NAME}-reactions"
        assert letters["t-refuses"].trace == "ab" * 16
        js = one.nc.jetstream()
        for thing, letter in letters.items():
            kept = await js.get_last_msg(DLQ, f"dlq.{letter.consumer}.{letter.stream}.{letter.stream_sequence}")
            original = await js.get_msg(letter.stream, letter.stream_sequence)
            assert kept.data == original.data, thing
        assert (await js.stream_info(DLQ)).state.messages == 8


@pytest.mark.timeout(120)
async def test_a_handler_whose_dependency_is_down_burns_no_attempt(server: EmbeddedServer, tmp_path: Path) -> None:
    async with place(server, tmp_path, ack_wait_s=1.0) as one:
        flag = tmp_path / "dependency"
        one.start(PROBE, PROBE_DEPENDENCY=str(flag))
        await one.poke("patient", "waits")
        js = one.nc.jetstream()

        async def waiting() -> bool:
            info = await js.consumer_info(COMMANDS, NAME)
            return info.num_ack_pending == 1

        await eventually(waiting, within_s=20)
        await one.poke("other", "fine")
        assert await one.things(1) == ["other"]
        flag.touch()
        assert sorted(await one.things(2)) == ["other", "patient"]
        with pytest.raises(NotFoundError):
            await js.get_last_msg("KV_FAILURES", f"$KV.FAILURES.{COMMANDS}.{NAME}.1")


@pytest.mark.timeout(180)
async def test_mended_and_redriven_the_end_is_as_without_the_poison(server: EmbeddedServer, tmp_path: Path) -> None:
    """By hand for a group and a range; rehearsed before; a discard is a fact; the new build takes the permanent ones."""
    async with place(server, tmp_path) as one:
        one.start(app_of("health"))
        broken = one.start(PROBE)
        modes = ["raises", "refuses", "fine", "raises", "fine"]
        for number, mode in enumerate(modes * 2):
            await one.poke(f"t{number}", mode)
        letters = by_thing(await one.facts(DeadLetterRecorded, 6))
        assert sorted(letters) == ["t0", "t1", "t3", "t5", "t6", "t8"]
        assert len({letter.fingerprint for letter in letters.values()}) == 2
        group = letters["t0"].fingerprint
        shown = json.loads((await asyncio.to_thread(one.spar, "dlq", "ls", "--group", group, "--json")).stdout)
        assert len(shown["letters"]) == 4
        nothing = await asyncio.to_thread(one.spar, "dlq", "redrive", "--group", group)
        assert nothing.returncode == 1 and "nothing was done: add --yes" in nothing.stdout
        wrong = await asyncio.to_thread(one.spar, "dlq", "redrive")
        assert wrong.returncode == 2 and "LETTER is missing" in wrong.stderr
        last = letters["t8"]
        until = str(last.stream_sequence)
        gone = await asyncio.to_thread(
            one.spar, "dlq", "discard", "--since", until, "--until", until, "--reason", "not needed", "--yes"
        )
        assert gone.returncode == 0, gone.stderr
        assert [fact.letter for fact in await one.facts(DeadLetterDiscarded)] == [last.letter]
        await asyncio.to_thread(broken.stop)
        one.start(PROBE, PROBE_MENDED="yes")
        done = await asyncio.to_thread(one.spar, "dlq", "redrive", "--group", group, "--yes")
        assert done.returncode == 0, done.stderr
        # three by hand, two permanent ones because a new build is there
        await one.facts(DeadLetterRecovered, 5)
        redriven = await one.facts(DeadLetterRedriven, 5)
        by_hand = {letters[thing].letter for thing in ("t0", "t3", "t5")}
        permanent = {letters[thing].letter for thing in ("t1", "t6")}
        assert Counter(fact.letter for fact in redriven if fact.by != "health") == Counter(by_hand)
        anew = [fact for fact in redriven if fact.by == "health" and fact.letter in permanent]
        assert Counter(fact.letter for fact in anew) == Counter(permanent)
        assert all("new build" in fact.reason for fact in anew)
        await one.things(9, "Echoed")
        assert sorted(await one.things(9)) == sorted(f"t{number}" for number in range(10) if number != 8)
        assert (await one.nc.jetstream().stream_info(DLQ)).state.messages == 6


@pytest.mark.timeout(120)
async def test_an_answer_that_comes_after_the_last_attempt_doubles_nothing(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """The server gives up on a handler that is only slow: its letter, redriven, finds that everything is done."""
    async with place(server, tmp_path, ack_wait_s=0.3) as one:
        one.start(app_of("health"))
        one.start(PROBE)
        await one.poke("late", "slow")
        letter = (await one.facts(DeadLetterRecorded))[0]
        assert await one.things(1) == ["late"]
        await one.order(RedriveDeadLetter(letter=letter.letter, by="test"), "redrive-1")
        await one.facts(DeadLetterRecovered)
        assert await one.things(1) == ["late"]


@pytest.mark.timeout(120)
async def test_a_consumer_that_asks_for_order_gets_it(server: EmbeddedServer, tmp_path: Path) -> None:
    """What fails holds back what comes after it, until it is handled or given up."""
    async with place(server, tmp_path, ordered=True) as one:
        one.start(app_of("health"))
        for number, mode in enumerate(["fine", "raises", "fine", "refuses", "fine"]):
            await one.poke(f"t{number}", mode)
        one.start(PROBE, PROBE_ORDERED="yes")
        assert await one.things(3) == ["t0", "t2", "t4"]
        letters = await one.facts(DeadLetterRecorded, 2)
        assert [letter.subject.split(".")[3] for letter in letters] == ["t1", "t3"]


@pytest.mark.timeout(120)
async def test_a_newer_producer_makes_letters_and_the_upgrade_takes_them(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """Two versions of one order and one fact live in one log; the older build neither crashes nor skips."""
    async with place(server, tmp_path) as one:
        one.start(app_of("health"))
        old = one.start(PROBE)
        await one.poke("first", "fine")
        await one.poke("newer", "fine", version=2)
        letter = (await one.facts(DeadLetterRecorded))[0]
        assert letter.exception == "NewerVersion"
        await one.poke("second", "fine")
        await one.things(2)
        await asyncio.to_thread(old.stop)
        one.start(PROBE, PROBE_VERSION="2")
        await one.facts(DeadLetterRecovered)
        await one.poke("third", "fine")
        await one.poke("fourth", "fine", version=2)
        assert sorted(await one.things(5)) == ["first", "fourth", "newer", "second", "third"]
        schemas = Counter(raw.headers["ce-dataschema"] for raw in await one.poked() if raw.subject.endswith("Poked"))
        assert schemas == {f"{NAME}/Poked.v1": 2, f"{NAME}/Poked.v2": 3}


@pytest.mark.timeout(120)
async def test_an_older_build_stops_at_a_newer_fact_and_goes_on_after_the_upgrade(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    async with place(server, tmp_path) as one:
        newer = one.start(PROBE, PROBE_VERSION="2")
        await one.poke("first", "fine", version=2)
        await one.things(1)
        await asyncio.to_thread(newer.stop)
        old = one.start(PROBE)
        subject = f"tel.svc-{NAME}-{old.replica}.heartbeat"

        async def says_so() -> str:
            try:
                beat = await one.nc.jetstream().get_last_msg(TELEMETRY, subject)
            except NotFoundError:
                return ""
            return str(json.loads(beat.data or b"{}").get("stuck", ""))

        stuck = await eventually(says_so, within_s=30)
        assert "NewerVersion" in stuck and "upgrade" in stuck
        assert old.running
        await asyncio.to_thread(old.stop)
        one.start(PROBE, PROBE_VERSION="2")
        await one.poke("second", "fine", version=2)
        assert sorted(await one.things(2)) == ["first", "second"]
        await one.things(2, "Echoed")


@pytest.mark.timeout(120)
async def test_what_an_advisory_lost_is_found_by_the_reconciliation(server: EmbeddedServer, tmp_path: Path) -> None:
    async with place(server, tmp_path) as one:
        one.start(PROBE)
        await one.poke("lost", "refuses")
        js = one.nc.jetstream()

        async def given_up() -> bool:
            with contextlib.suppress(NotFoundError):
                await js.get_last_msg("KV_FAILURES", f"$KV.FAILURES.{COMMANDS}.{NAME}.1")
                return (await js.stream_info(ADVISORIES)).state.messages > 0
            return False

        await eventually(given_up, within_s=20)
        await js.purge_stream(ADVISORIES)
        one.start(app_of("health"), SPARRING_HEALTH__RECONCILE_S="1")
        letter = (await one.facts(DeadLetterRecorded))[0]
        assert letter.cause == "reconciled"
        assert letter.exception == "Refused"


@pytest.mark.timeout(120)
async def test_what_was_never_answered_nor_written_down_is_found_in_the_consumer_itself(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    async with place(server, tmp_path, ack_wait_s=0.3) as one:
        js = one.nc.jetstream()
        # nobody will ever hear an advisory
        await js.delete_stream(ADVISORIES)
        await one.poke("silent", "fine")
        pull = await js.pull_subscribe_bind(NAME, COMMANDS)

        async def exceeded() -> bool:
            with contextlib.suppress(TimeoutError):
                await pull.fetch(1, timeout=0.2)
            info = await js.consumer_info(COMMANDS, NAME)
            return info.num_ack_pending == 0 and (info.delivered.consumer_seq if info.delivered else 0) >= 5

        await eventually(exceeded, within_s=60, what="five deliveries that nobody answers")
        one.start(app_of("health"), SPARRING_HEALTH__RECONCILE_S="0.5")
        letter = (await one.facts(DeadLetterRecorded))[0]
        assert (letter.cause, letter.transient) == ("reconciled", True)
        one.start(PROBE)
        await one.order(RedriveDeadLetter(letter=letter.letter, by="test"), "redrive-silent")
        await one.facts(DeadLetterRecovered)
        assert await one.things(1) == ["silent"]


@pytest.mark.timeout(120)
async def test_a_consumer_that_stalls_without_an_advisory_raises_an_alarm(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    async with place(server, tmp_path) as one:
        one.start(app_of("health"), SPARRING_HEALTH__STALLED_S="1")
        await one.poke("nobody", "fine")
        alarm = next(fact for fact in await one.facts(AlarmRaised) if fact.alarm.startswith("stalled"))
        assert alarm.about == NAME
        assert "nobody pulls" in alarm.text


@pytest.mark.timeout(180)
async def test_a_handler_has_as_long_as_health_says(server: EmbeddedServer, tmp_path: Path) -> None:
    """A limit that moved holds after a start, and moves while the service serves."""
    async with place(server, tmp_path) as one:

        async def moves(value: float, before: float) -> None:
            fact = ThresholdMoved(threshold=f"handler-{NAME}", value=value, before=before, least=1.0,
                                  most=120.0, terms=())  # fmt: skip
            subject, headers, body = encode(fact, Envelope(f"move-{value}", "test", clock.now()))
            await one.nc.jetstream().publish(subject, body, headers=headers, stream=EVENTS)

        await moves(20.0, 1.0)
        # two seconds of work, one second by its own declaration
        slow = {"PROBE_SLOW_S": "2", "PROBE_HANDLER_S": "1"}
        one.start(PROBE, **slow)
        await one.poke("first", "slow")
        assert await one.things(1) == ["first"]
        await moves(1.5, 20.0)
        one.start(app_of("health"), SPARRING_HEALTH__HANDLER_LEAST_S="1")
        await one.poke("second", "slow")
        (letter,) = await one.facts(DeadLetterRecorded)
        assert letter.exception == "HandlerTimeout"
        assert "handler_s = 1.5 s" in letter.reason
