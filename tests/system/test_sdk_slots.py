"""A training slot in one's own process: renewed, lost at its own deadline, given up when asked; a late writer is fenced."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sparring
from sparring.client import Client, SlotLost, SlotNotGranted
from sparring.contracts.lifecycle import FenceRaised, ModelRefused, ModelRegistered
from sparring.contracts.training_slots import (
    PreemptSlot,
    SlotClaimed,
    SlotExpired,
    SlotPreempted,
    SlotReleased,
    SlotRenewed,
)
from sparring.decider import Recorded
from sparring.hearing import whole
from sparring.invariants import violations
from sparring.log import JetStreamLog
from sparring.server import EmbeddedServer
from sparring.testing import eventually
from sparring.testing.processes import Replica

SERVICES = ("lifecycle", "pipeline", "training-slots")
DATA = "d" * 64


async def log_of(client: Client) -> list[Recorded]:
    return await whole(JetStreamLog(await client._connected()))


async def facts(client: Client, *kinds: type[Any]) -> list[Any]:
    return [one.fact for one in await log_of(client) if isinstance(one.fact, kinds)]


async def test_a_slot_is_renewed_while_it_is_held_and_given_back_at_the_end(client: Client) -> None:
    async with client.training_slot("hex", lease_s=3) as slot:
        assert slot.token > 0

        async def renewed() -> bool:
            return len(await facts(client, SlotRenewed)) >= 4

        await eventually(renewed, within_s=30, every_s=0.2)
        slot.check()
        answer = await client.can_train("hex")
        assert not answer.allowed and slot.holder in answer.reason

    async def released() -> bool:
        return len(await facts(client, SlotReleased)) == 1

    await eventually(released)
    assert (await client.can_train("hex")).allowed
    before = await client.can_train("hex", at=slot.token)
    assert not before.allowed, "the same question about a past moment has that moment's answer"


async def test_who_gets_no_slot_in_time_is_told_and_waits_no_longer(client: Client) -> None:
    async with client.training_slot("hex"):
        with pytest.raises(SlotNotGranted, match="within 1 s"):
            await client.training_slot("hex", within_s=1).claim()
    async with client.training_slot("hex", within_s=20) as slot:
        assert slot.token


async def test_a_slot_is_lost_at_its_own_deadline_whatever_the_network_says(
    client: Client, server: EmbeddedServer
) -> None:
    slot = client.training_slot("hex", lease_s=3)
    await slot.claim()
    server.kill()
    await asyncio.wait_for(slot.lost.wait(), 30)
    assert slot.rest_s == 0 and "renewed" in slot.reason
    with pytest.raises(SlotLost, match="hex"):
        slot.check()


async def test_a_holder_that_is_asked_to_give_way_hears_it_and_counts_as_preempted(client: Client) -> None:
    async with client.training_slot("hex") as slot:
        await client.send(PreemptSlot(lane="hex", by="me", reason="a demo", grace_s=30))
        await asyncio.wait_for(slot.asked.wait(), 30)
        assert slot.give_way_s == 30 and "me" in slot.reason
        slot.check()

    async def preempted() -> list[Any]:
        return await facts(client, SlotPreempted)

    (fact,) = await eventually(preempted)
    assert fact.gave_way


async def test_the_blocking_form_renews_while_the_caller_computes(client: Client, url: str) -> None:
    def work() -> int:
        with sparring.connect(url) as blocking, blocking.training_slot("hex", lease_s=3) as slot:
            end = slot.rest_s + 2
            import time

            time.sleep(end)
            slot.check()
            assert not slot.asked and blocking.role("training-slots") == "0"
            return int(slot.token)

    token = await asyncio.to_thread(work)
    assert token and not await facts(client, SlotExpired)


# ---- spar with-slot


def with_slot(url: str, environ: dict[str, str], script: Path, *options: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "sparring.cli", "with-slot", "hex", "--nats", url, *options, "--", sys.executable]
    return subprocess.Popen([*argv, str(script)], env=environ, stderr=subprocess.PIPE)


async def test_a_command_runs_only_while_the_slot_is_held_and_its_exit_code_is_passed_on(
    client: Client, url: str, environ: dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import os, sys\nopen(sys.argv[0] + '.token', 'w').write(os.environ['SPARRING_SLOT_TOKEN'])\nsys.exit(7)"
    )
    code = await asyncio.to_thread(with_slot(url, environ, script).wait, 60)
    assert code == 7
    (claimed,) = [one for one in await log_of(client) if isinstance(one.fact, SlotClaimed)]
    assert (tmp_path / "train.py.token").read_text() == str(claimed.sequence)


async def test_a_command_that_must_give_way_gets_sigterm_and_then_sigkill_with_its_whole_group(
    client: Client, url: str, environ: dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / "stubborn.py"
    script.write_text("""
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: open(sys.argv[0] + ".asked", "w").close())
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[0] + ".pid", "w").write(str(child.pid))
while True: time.sleep(0.1)
""")
    process = with_slot(url, environ, script)
    await eventually(lambda: (tmp_path / "stubborn.py.pid").exists(), within_s=60)
    await client.send(PreemptSlot(lane="hex", by="me", reason="a demo", grace_s=2))
    code = await asyncio.to_thread(process.wait, 60)
    assert code == 128 + signal.SIGKILL
    assert (tmp_path / "stubborn.py.asked").exists()
    await eventually(lambda: not _alive(int((tmp_path / "stubborn.py.pid").read_text())), within_s=20)
    assert (await eventually(lambda: facts(client, SlotPreempted)))[0].token


def _alive(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


# ---- 5: after its lease a second holder got in while the first one still wrote


@pytest.mark.timeout(300)
async def test_rule_5_a_late_writer_is_fenced_though_it_was_only_stopped_for_a_while(
    client: Client, url: str, environ: dict[str, str], tmp_path: Path, services: dict[str, Replica]
) -> None:
    """A holder stands still past its lease (SIGSTOP), the next one trains; what the first one finishes is refused."""
    script = tmp_path / "slow.py"
    script.write_text(f"""
import os, pathlib, subprocess, sys, time
here = pathlib.Path(sys.argv[0])
here.with_suffix(".pid").write_text(str(os.getpid()))
while not here.with_suffix(".go").exists(): time.sleep(0.05)
weights = here.with_suffix(".weights"); weights.write_text("late")
sys.exit(subprocess.call([sys.executable, "-m", "sparring.cli", "record", "model", "hex", str(weights),
                          "--dataset", "{DATA}", "--steps", "5", "--task", "late", "--nats", "{url}"],
                         start_new_session=True))
""")
    stale = with_slot(url, environ, script, "--lease-s", "4", "--grace-s", "0")
    await eventually(lambda: (tmp_path / "slow.pid").exists(), within_s=60)
    pids = [stale.pid, int((tmp_path / "slow.pid").read_text())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    async with client.training_slot("hex", within_s=60) as slot:
        expired = [one for one in await log_of(client) if isinstance(one.fact, SlotExpired)]
        assert len(expired) == 1 and slot.token > expired[0].fact.token
        assert [fact.token for fact in await eventually(lambda: raised(client, slot.token))][-1] == slot.token
        # it wakes up and writes on: nothing on its machine tells it that time has passed
        (tmp_path / "slow.go").touch()
        os.kill(pids[1], signal.SIGCONT)

        async def refused() -> list[Any]:
            return await facts(client, ModelRefused)

        (late,) = await eventually(refused, within_s=60)
        assert (late.token, late.highest_token) == (expired[0].fact.token, slot.token)
        assert not await facts(client, ModelRegistered)
        weights = tmp_path / "weights"
        weights.write_text("in time")
        await client.training_complete("hex", weights, {"steps": 5}, slot=slot, dataset=DATA, task="in-time")
        await eventually(lambda: facts(client, ModelRegistered), within_s=30)
    # its command has ended well before its agent wakes up, else SIGTERM would still meet it
    await eventually(lambda: not _alive(pids[1]), within_s=60)
    os.kill(pids[0], signal.SIGCONT)
    assert await asyncio.to_thread(stale.wait, 60) == 75, "its command ended well, but late"
    assert violations(await log_of(client)) == []


async def raised(client: Client, token: int) -> list[Any]:
    found = await facts(client, FenceRaised)
    return found if found and found[-1].token == token else []
