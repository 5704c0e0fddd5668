"""`spar with-slot LANE -- command …`: a command that runs only while it holds the lane's training slot."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from sparring.cli.common import Data, Nats
from sparring.client import Client, SlotNotGranted, TrainingSlot
from sparring.errors import BadInput

NOT_HELD = 75
PDEATHSIG = 1


def with_slot(
    context: typer.Context,
    lane: Annotated[str, typer.Argument(help="The lane to train.")],
    priority: Annotated[int, typer.Option(help="Higher goes first among lanes that wait.")] = 0,
    lease_s: Annotated[float, typer.Option(min=3, help="Seconds that a renewal lasts.")] = 90.0,
    within_s: Annotated[float | None, typer.Option(min=0, help="Give up waiting after so many seconds.")] = None,
    grace_s: Annotated[float, typer.Option(min=0, help="Seconds between SIGTERM and SIGKILL.")] = 10.0,
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Runs a command while the lane's training slot is held: spar with-slot LANE -- python train.py

    The command finds SPARRING_SLOT_TOKEN and SPARRING_SLOT_LANE in its environment and runs in a process group of its own.
    When the slot must be given up or can't be renewed, the group gets SIGTERM, then SIGKILL: it is gone before the slot
    is. The exit code is the command's (128 + n when a signal n ended it), 75 when no slot came in time,
    or when the command ended well only after the slot was lost.
    """
    argv = list(context.args)
    if not argv:
        raise BadInput("no command; write it after --: spar with-slot LANE -- python train.py")
    sys.exit(asyncio.run(_run(nats, data, lane, argv, priority, lease_s, within_s, grace_s)))


async def _run(
    nats: str | None, data: str | None, lane: str, argv: Sequence[str], priority: int, lease_s: float,
    within_s: float | None, grace_s: float,
) -> int:  # fmt: skip
    async with Client(nats, data) as client:
        slot = client.training_slot(lane, priority=priority, lease_s=lease_s, within_s=within_s)
        try:
            await slot.claim()
        except SlotNotGranted as error:
            print(f"spar: {error}", file=sys.stderr)
            return NOT_HELD
        try:
            return await _while_held(slot, argv, min(grace_s, lease_s / 3))
        finally:
            await slot.release()


def _before_exec() -> None:
    if sys.platform == "linux":
        # whoever kills this command leaves nobody who trains without a slot
        ctypes.CDLL(None, use_errno=True).prctl(PDEATHSIG, signal.SIGKILL)


async def _while_held(slot: TrainingSlot, argv: Sequence[str], grace_s: float) -> int:
    environ = {**os.environ, "SPARRING_SLOT_TOKEN": str(slot.token), "SPARRING_SLOT_LANE": slot.lane}
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, env=environ, start_new_session=True, preexec_fn=_before_exec
        )
    except OSError as error:
        raise BadInput(f"{argv[0]} can't be run: {error.strerror}") from error
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, _signal, process.pid, signum)
    watching = asyncio.create_task(_stop_when_lost(slot, process.pid, grace_s))
    try:
        code = await process.wait()
    finally:
        watching.cancel()
        # whatever of the group outlived its leader
        _signal(process.pid, signal.SIGKILL)
    if code == 0 and slot.rest_s <= 0:
        print(
            f"spar: the command ended after its training slot was lost ({slot.reason}): what it made is late",
            file=sys.stderr,
        )
        return NOT_HELD
    return 128 - code if code < 0 else code


async def _stop_when_lost(slot: TrainingSlot, group: int, grace_s: float) -> None:
    """SIGTERM when the slot has to be given up, in time to be gone by its deadline; SIGKILL after that."""
    while not slot.lost.is_set() and not slot.asked.is_set() and slot.rest_s > grace_s:
        await asyncio.sleep(min(0.2, max(0.01, slot.rest_s - grace_s)))
    why = slot.reason or "the slot could not be renewed"
    print(f"spar: the training slot of {slot.lane} ends ({why}): SIGTERM", file=sys.stderr, flush=True)
    _signal(group, signal.SIGTERM)
    left = slot.give_way_s if slot.asked.is_set() else grace_s
    end = loop_time() + left
    while loop_time() < end and slot.rest_s > 0:
        await asyncio.sleep(0.05)
    print(f"spar: the training slot of {slot.lane} is over: SIGKILL", file=sys.stderr, flush=True)
    _signal(group, signal.SIGKILL)


def loop_time() -> float:
    return asyncio.get_running_loop().time()


def _signal(group: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)
