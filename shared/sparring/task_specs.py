"""What a task of a lane runs: built alike by everyone who asks for tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from sparring.contracts.lanes import KindNeeds, LaneSpec
from sparring.contracts.parts import Artifact, TaskSpec
from sparring.errors import Permanent


class KindNotOffered(Permanent):
    """The lane's file names no program for this kind of task."""


def seed_of(task: str) -> int:
    """A task's seed: 31 bits of the SHA-256 of its id."""
    return int.from_bytes(hashlib.sha256(task.encode()).digest()[:4], "big") >> 1


def task_spec(
    lane: LaneSpec,
    kind: str,
    task: str,
    *,
    timeout_s: float,
    work: Mapping[str, Any],
    inputs: Mapping[str, Sequence[Artifact]] | None = None,
    iteration: str = "",
    model: str = "",
    gate: str = "",
    slot_token: int | None = None,
) -> TaskSpec:
    """Raises KindNotOffered when the lane has no command for the kind."""
    if kind not in lane.commands:
        raise KindNotOffered(f"lane {lane.name}: commands.{kind} is missing in its lane file")
    needs = lane.needs.get(kind, KindNeeds())
    return TaskSpec(
        kind=kind,
        lane=lane.name,
        seed=seed_of(task),
        game=lane.game,
        game_params=lane.game_params,
        params=lane.params,
        work=dict(work),
        inputs={name: tuple(files) for name, files in (inputs or {}).items()},
        argv=lane.commands[kind],
        verify=lane.commands.get("verify", ()) if kind == "selfplay" else (),
        timeout_s=timeout_s,
        iteration=iteration,
        model=model,
        gate=gate,
        slot_token=slot_token,
        exclusive=slot_token is not None,
        gpu=needs.gpu,
        memory_bytes=needs.memory_bytes,
        disk_bytes=needs.disk_bytes,
    )
