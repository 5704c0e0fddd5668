"""Services start in any order, the server last if it likes: the end state is the same.

A few orders in CI, `SPARRING_ORDERS=20` in the nightly command.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from pathlib import Path

import pytest
import service_stories as stories

from sparring.contracts.health import ClusterSwitched, SwitchCluster
from sparring.contracts.lifecycle import GateOpened, RegisterModel
from sparring.contracts.pipeline import IterationOpened, LanePaused, PauseLane, RegisterLane
from sparring.contracts.selfplay_orch import CancelTask, RequestTask, TaskCancelled, TaskRequested
from sparring.contracts.settings import SETTINGS_ADOPTED
from sparring.contracts.sync import GamesRecorded
from sparring.contracts.training_slots import ClaimQueued, ClaimSlot, SlotClaimed
from sparring.hearing import whole
from sparring.invariants import violations
from sparring.log.guards import unguarded
from sparring.server import EmbeddedServer, free_port
from sparring.testing.processes import Replica, app_of

ORDERS = int(os.environ.get("SPARRING_ORDERS", "8"))
AT_ONCE = 2
SERVICES = ("health", "lifecycle", "pipeline", "selfplay-orch", "sync", "training-slots")


async def story(stage) -> None:  # type: ignore[no-untyped-def]
    """Something for everyone to decide, and for everyone to hear of others."""
    await stage.order(RegisterLane(lane="hex", spec=stories.lane()))
    await stage.happened(IterationOpened)
    for number in range(4):
        await stage.order(ClaimSlot(lane=f"lane{number}", holder=f"h{number}", lease_s=3600))
        await stage.happened(SlotClaimed if number < 3 else ClaimQueued, min(3, number + 1) if number < 3 else 1)
    for number in range(3):
        await stage.order(stories.batch(f"t{number}", b"games"))
    task = stories.TaskSpec(kind="export", lane="hex", seed=1, argv=stories.ARGV, timeout_s=600.0)
    await stage.order(RequestTask(task="e1", spec=task, by="pipeline"))
    await stage.happened(TaskRequested)
    await stage.order(CancelTask(task="e1", reason="story"))
    lineage = stories.Lineage(
        parent="", dataset=stories.SHA, task="t1", iteration="hex-9", code_version="1", settings_hash="s", slot_token=5
    )
    await stage.order(
        RegisterModel(lane="hex", model="b" * 64, artifact=stories.artifact("model", "b" * 64), lineage=lineage,
                      evidence={"steps": 1}, rules=stories.lane().gate))  # fmt: skip
    # what the gate asks for is there before the lane is paused: else the end would depend on who was faster
    await stage.happened(TaskRequested, 2)
    await stage.order(SwitchCluster(state="paused", revision=1, by="story"))
    await stage.order(PauseLane(lane="hex", revision=1, by="story"))
    for kind, count in ((GamesRecorded, 3), (TaskCancelled, 1), (GateOpened, 1), (ClusterSwitched, 1), (LanePaused, 1)):
        await stage.happened(kind, count)
    for name in SERVICES:
        await stage.happened(SETTINGS_ADOPTED[name])


async def told(seed: int, folder: Path) -> Counter[str]:
    """The end state after a start in the order of the seed."""
    rng = random.Random(seed)
    order = rng.sample(SERVICES, len(SERVICES))
    server = EmbeddedServer(folder / "nats", port=free_port())
    url = f"nats://127.0.0.1:{server.port}"
    last = seed % 3 == 0
    replicas = [Replica(app_of(name), url, folder / "data") for name in order]
    try:
        if not last:
            await asyncio.to_thread(server.start)
        for replica in replicas:
            await asyncio.to_thread(replica.start)
            await asyncio.sleep(rng.choice([0.0, 0.05, 0.2]))
        if last:
            await asyncio.to_thread(server.start)
        stage = await stories.Stage.of(url)
        await story(stage)
        facts = await whole(stage.log)
        assert await unguarded(stage.log) == []
        await stage.nc.close()
        assert violations(facts) == []
        return Counter(stories.end_state(facts))
    finally:
        for replica in replicas:
            replica.kill()
        with contextlib.suppress(OSError):
            server.kill()


@pytest.mark.timeout(600)
async def test_any_order_of_starts_ends_in_the_same_state(tmp_path: Path) -> None:
    ends: dict[int, Counter[str]] = {}
    for first in range(0, ORDERS, AT_ONCE):
        seeds = range(first, min(ORDERS, first + AT_ONCE))
        some = await asyncio.gather(*(told(seed, tmp_path / str(seed)) for seed in seeds))
        ends |= dict(zip(seeds, some, strict=True))
    for seed, end in ends.items():
        assert end == ends[0], f"seed {seed}: lost {ends[0] - end}, more {end - ends[0]}"
