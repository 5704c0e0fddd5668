"""Nothing fails in silence: what can't be handled is a dead letter, once, with its reason; redriven it reaches one consumer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from sparring import clock
from sparring.contracts.health import (
    DeadLetterRecorded,
    DeadLetterRecovered,
    DeadLetterRedriven,
    DiscardDeadLetter,
    RedriveDeadLetter,
)
from sparring.contracts.training_slots import ClaimSlot, SlotClaimed
from sparring.decider import Recorded
from sparring.envelope import encode_order
from sparring.hearing import heard
from sparring.log import JetStreamLog
from sparring.server import EmbeddedServer
from sparring.streams import COMMANDS, DLQ
from sparring.testing import eventually

SUBJECT = "cmd.training-slots.pool.main.ClaimSlot"


@contextmanager
def services(url: str, folder: Path, *names: str) -> Iterator[None]:
    """The services as processes of their own, as they are deployed."""
    running = []
    for name in names:
        with (folder / f"{name}.log").open("ab") as log:
            argv = [sys.executable, "-m", name, "--nats", url, "--data", str(folder)]
            running.append(subprocess.Popen(argv, stdout=log, stderr=log))
    try:
        yield
    finally:
        for one in running:
            one.terminate()
        for one in running:
            one.wait(30)


async def facts(nc: Client, *classes: type) -> list[Recorded]:
    raws = await JetStreamLog(nc).load("evt.>")
    return [one for raw in raws if (one := heard(raw)) is not None and isinstance(one.fact, classes)]


async def order(nc: Client, message: object, id: str, *, expired: bool = False) -> None:
    now = clock.now() - timedelta(seconds=100 if expired else 0)
    subject, headers, body = encode_order(message, id, now=now, source="test", expires_s=50)  # type: ignore[arg-type]
    await nc.jetstream().publish(subject, body, headers=headers, stream=COMMANDS)


async def ready(nc: Client, *durables: str) -> None:
    async def there() -> bool:
        infos = await nc.jetstream().consumers_info(COMMANDS)
        return set(durables) <= {info.name for info in infos}

    async def looks() -> bool:
        try:
            return await there()
        except nats.js.errors.NotFoundError:
            return False

    await eventually(looks, within_s=60)


@pytest.mark.timeout(180)
async def test_what_cannot_be_handled_becomes_a_letter_once_and_healthy_ones_pass(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    assert server.address is not None
    with services(server.address.url, tmp_path, "health", "training_slots"):
        nc = await nats.connect(server.address.url)
        await ready(nc, "health", "training-slots")
        js = nc.jetstream()
        newer = {"ce-id": "n", "ce-dataschema": "training-slots/ClaimSlot.v9"}
        poison = [(SUBJECT, b"\x00 not json", {}), (SUBJECT, b'{"lane": 5}', {}), (SUBJECT, b"{}", newer),
                  ("cmd.training-slots.pool.main.NoSuchOrder", b"{}", {})]  # fmt: skip
        for number in range(10):
            subject, body, headers = poison[number % 4]
            await js.publish(subject, body, headers={**headers, "Nats-Msg-Id": f"poison-{number}"})
        await order(nc, ClaimSlot(lane="hex5_2p", holder="h1"), "healthy")

        async def claimed() -> bool:
            return len(await facts(nc, SlotClaimed)) == 1

        await eventually(claimed, within_s=30, what="the healthy order is not delayed by ten poisoned ones")

        async def recorded() -> bool:
            return len(await facts(nc, DeadLetterRecorded)) == 10

        await eventually(recorded, within_s=60)
        letters = [one.fact for one in await facts(nc, DeadLetterRecorded)]
        assert {one.exception for one in letters} == {"Undecodable", "UnknownMessage", "NewerVersion"}  # type: ignore[attr-defined]
        assert len({one.fingerprint for one in letters}) <= 5  # type: ignore[attr-defined]
        assert (await js.stream_info(DLQ)).state.messages == 10
        kept = await js.get_last_msg(DLQ, f"dlq.training-slots.COMMANDS.{letters[0].stream_sequence}")  # type: ignore[attr-defined]
        assert kept.data == b"\x00 not json"
        assert (kept.headers or {})["Sparring-Exception"] == "Undecodable"
        await nc.close()


@pytest.mark.timeout(180)
async def test_a_redriven_letter_reaches_the_consumer_that_failed_and_recovers(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    assert server.address is not None
    with services(server.address.url, tmp_path, "health", "training_slots"):
        nc = await nats.connect(server.address.url)
        await ready(nc, "health", "training-slots")
        await order(nc, ClaimSlot(lane="hex5_2p", holder="late"), "expired-1", expired=True)
        await order(nc, ClaimSlot(lane="ttt_2p", holder="late2"), "expired-2", expired=True)

        async def recorded() -> bool:
            return len(await facts(nc, DeadLetterRecorded)) == 2

        await eventually(recorded, within_s=60)
        first, second = (one.fact.letter for one in await facts(nc, DeadLetterRecorded))  # type: ignore[attr-defined]
        assert await facts(nc, SlotClaimed) == []
        await order(nc, RedriveDeadLetter(letter=first, by="test", force=True), "redrive-1")
        await order(nc, DiscardDeadLetter(letter=second, by="test", reason="not needed"), "discard-1")

        async def recovered() -> bool:
            return len(await facts(nc, DeadLetterRecovered)) == 1

        await eventually(recovered, within_s=60)
        assert len(await facts(nc, DeadLetterRedriven)) == 1
        assert [one.fact.holder for one in await facts(nc, SlotClaimed)] == ["late"]  # type: ignore[attr-defined]
        assert (await nc.jetstream().stream_info(DLQ)).state.messages == 2
        await nc.close()
