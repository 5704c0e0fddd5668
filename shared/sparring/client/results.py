"""Completions by scripts: games, progress and models of programs that no agent runs."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats.errors

from sparring import clock
from sparring.artifacts import open_store
from sparring.client.orders import Sent
from sparring.client.slots import TrainingSlot
from sparring.client.work import Work
from sparring.contracts.lifecycle import Lineage, RegisterModel
from sparring.contracts.parts import Artifact, Check
from sparring.contracts.readings import TaskProgress
from sparring.contracts.sync import RecordGames, SyncNow
from sparring.errors import BadInput
from sparring.subjects import token


@dataclass(frozen=True)
class Recording:
    """What was recorded, under which identity; `sent` says whether the server has the order already."""

    id: str
    sent: Sent


def here() -> str:
    """Where the caller runs, as facts name it."""
    return f"outside-{socket.gethostname()}-{os.getpid()}"[:120]


class Client(Work):
    """`async with Client(data=".sparring") as client: …`: orders that are not lost, questions that say as of when.

    Nothing of NATS to know. Every question takes `at=`, a sequence or a time.
    """

    async def selfplay_complete(
        self, lane: str, file: Path, games: int, positions: int, *, task: str = "", attempt: int = 1, model: str = "",
        check: Check | None = None,
    ) -> Recording:  # fmt: skip
        """Records a batch of games that a program of yours played: the file goes to the store, sync judges it at once.

        The batch's identity is (task, attempt), never its content: name the task to be able to send it again. Raises
        BadInput for a lane that nobody registered.
        """
        if games <= 0 or positions <= 0:
            raise BadInput(f"games = {games}, positions = {positions}: a completion carries its evidence")
        await self.check_lane(lane)
        task = task or f"{lane}-outside-{clock.new_id()[:8]}"
        artifact = await self.keep(file, "games")
        order = RecordGames(
            batch=f"{task}-{attempt}", lane=lane, task=task, attempt=attempt, node=here(), model=model,
            sha256=artifact.sha256, bytes=artifact.bytes, games=games, positions=positions,
            check=check or Check(ok=True, games=games, positions=positions), url=artifact.url,
        )  # fmt: skip
        return Recording(order.batch, await self.send(order))

    async def sync_recommendations(self, lane: str = "", at: str | int | None = None) -> list[Any]:
        """Batches that only a node holds, the most urgent first: `.batch`, `.node`, `.urgency`, `.age_s`, `.why`."""
        return list(await self.question("sync", "recommendations", at, lane=lane))

    async def sync_now(self, lane: str = "", for_s: float = 600.0) -> int:
        """Moves what nodes still hold (of one lane, or of all) to the front of the transfers; how many batches that are."""
        if lane:
            await self.check_lane(lane)
        sql = "select batch from sync_batches where state in ('recorded', 'granted') and (? = '' or lane = ?) order by batch"
        held = await self.rows(sql, [lane, lane])
        for row in held:
            await self.send(SyncNow(batch=row["batch"], for_s=for_s))
        return len(held)

    async def transfer(self, *artifacts: Artifact, to: str) -> list[Artifact]:
        """Copies what the log knows into another home of yours (`file:///mnt/nas/hex`, `nats://BUCKET`): models, shards,
        batches. Returns the same artifacts with their new addresses; the log's own copies stay where they are.

        Hashes are checked when they are read and when they are written; what is there already is not sent again. Raises
        BadInput for a home that this build does not know.
        """
        js = (await self._connected()).jetstream(timeout=5)
        target, moved = await open_store(to, js), list[Artifact]()
        with tempfile.TemporaryDirectory(prefix="sparring-transfer-") as folder:
            for one in artifacts:
                file = await self.fetch(one, Path(folder) / one.sha256)
                moved.append(one.model_copy(update={"url": await target.put(file, one.sha256)}))
                await asyncio.to_thread(file.unlink, missing_ok=True)
        return moved

    async def training_progress(
        self, lane: str, done: float, of: float, *, task: str = "", kind: str = "train"
    ) -> bool:
        """A reading, not a fact: how far a training is. False when no server hears it; nothing is kept for later."""
        reading = TaskProgress(node=here(), task=task or f"{lane}-{kind}", lane=lane, kind=kind, done=done, of=of)
        try:
            nc = await self._connected()
            await nc.publish(f"tel.{token(here())}.progress", reading.model_dump_json().encode())
        except (BadInput, nats.errors.Error, OSError):
            return False
        return True

    async def training_complete(
        self, lane: str, file: Path, evidence: Mapping[str, Any], *, slot: TrainingSlot | int, dataset: str,
        parent: str = "", task: str = "", iteration: str = "", code_version: str = "outside",
    ) -> Recording:  # fmt: skip
        """Registers a model that a program of yours trained, under its slot's token; its gate opens with it.

        A stale token is refused by lifecycle (`ModelRefused`); a slot that is known to be lost already here (SlotLost).
        """
        if isinstance(slot, TrainingSlot):
            slot.check()
        if not evidence:
            raise BadInput("evidence is empty: say at least how many steps were trained")
        spec = await self.lane(lane)
        artifact = await self.keep(file, "model")
        task = task or f"{lane}-outside-{clock.new_id()[:8]}"
        lineage = Lineage(
            parent=parent, dataset=dataset, task=task, iteration=iteration or task, code_version=code_version,
            settings_hash=hashlib.sha256(spec.model_dump_json().encode()).hexdigest()[:12],
            slot_token=slot if isinstance(slot, int) else slot.token,
        )  # fmt: skip
        order = RegisterModel(
            lane=lane, model=artifact.sha256, artifact=artifact, lineage=lineage, evidence=dict(evidence),
            rules=spec.gate, by_hand="promote" not in spec.auto,
        )  # fmt: skip
        return Recording(artifact.sha256, await self.send(order))
