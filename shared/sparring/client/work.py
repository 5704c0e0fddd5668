"""Work for the cluster, and work of one's own that the cluster knows of."""

from __future__ import annotations

import asyncio
import functools
import getpass
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

from sparring import clock
from sparring.artifacts import open_store, sha256_of
from sparring.client.orders import Sent
from sparring.client.slots import TrainingSlot
from sparring.client.tracing import Tracing
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.parts import Artifact, TaskSpec
from sparring.contracts.selfplay_orch import (
    CancelTask,
    CloseTask,
    OpenTask,
    RequestTask,
    TaskAbandoned,
    TaskCancelled,
    TaskFinished,
)
from sparring.decider import Recorded
from sparring.errors import BadInput, SparringError
from sparring.hearing import heard
from sparring.log.jetstream import JetStreamLog
from sparring.subjects import Ref
from sparring.task_specs import seed_of, task_spec

P = ParamSpec("P")
R = TypeVar("R")


class NoEvidence(SparringError):
    """The work ended without saying what it did: a completion carries its evidence."""


class TaskEnded(SparringError):
    """The task will not finish: it was given up or cancelled; the message says why."""


@dataclass(frozen=True)
class Submitted:
    """A task that was asked for; `sent` says whether the server has the order already."""

    task: str
    sent: Sent


def who() -> str:
    """The caller, as facts name it."""
    return f"{getpass.getuser()}@{socket.gethostname()}"[:120]


class Work(Tracing):
    """Tasks of any kind, and training slots."""

    async def lane(self, name: str, at: str | int | None = None) -> LaneSpec:
        """The lane's settings. Raises BadInput when it is not registered."""
        found = await self.rows("select spec from pipeline_lanes where lane = ?", [name], at=at)
        if not found:
            raise BadInput(f"lane = {name!r} is not registered; add it with spar lanes add FILE")
        return LaneSpec.model_validate(found[0]["spec"])

    async def submit(
        self, kind: str, lane: str, argv: Sequence[str] = (), *, work: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Sequence[Artifact]] | Sequence[str] = (), timeout_s: float = 0.0, task: str = "",
        max_attempts: int = 3, expires_s: float | None = None, gpu: bool = False, memory_bytes: int = 0,
    ) -> Submitted:  # fmt: skip
        """Asks for a task of any kind, also one of your own: the lane file's `commands.<kind>`, or `argv`.

        `argv` must pass `{job}` and `{out}` on. `inputs` are artifacts by name, or names that the log knows: `shards` (of
        the lane's last export) and `model` (in production). Raises BadInput for an unknown lane, kind or input.
        """
        spec = await self.lane(lane)
        if argv:
            missing = [one for one in ("{job}", "{out}") if not any(one in part for part in argv)]
            if missing:
                raise BadInput(
                    f"argv = {list(argv)!r}: the program never learns its {missing[0]}; add that placeholder"
                )
            spec = spec.model_copy(update={"commands": spec.commands | {kind: tuple(argv)}})
        elif kind not in spec.commands:
            raise BadInput(
                f"kind = {kind!r}: lane {lane} offers {', '.join(sorted(spec.commands))}; "
                f"add commands.{kind} to its lane file, or name the program"
            )
        files = inputs if isinstance(inputs, Mapping) else await self.inputs(lane, inputs)
        task = task or f"{lane}-{kind}-{clock.new_id()[:8]}"
        built = task_spec(spec, kind, task, timeout_s=timeout_s, work=work or {}, inputs=files)
        built = built.model_copy(
            update={"gpu": built.gpu or gpu, "memory_bytes": max(built.memory_bytes, memory_bytes)}
        )
        order = RequestTask(task=task, spec=built, by=who(), max_attempts=max_attempts, expires_s=expires_s)
        return Submitted(task, await self.send(order))

    async def inputs(self, lane: str, names: Sequence[str]) -> dict[str, tuple[Artifact, ...]]:
        """What the log knows by these names. Raises BadInput for another name, or when there is nothing yet."""
        found: dict[str, tuple[Artifact, ...]] = {}
        for name in names:
            if name == "model":
                found[name] = (await self.model(lane),)
            elif name == "shards":
                found[name] = await self.shards(lane)
            else:
                raise BadInput(f"input {name!r}: known by name are shards and model; give artifacts for others")
        return found

    async def shards(self, lane: str) -> tuple[Artifact, ...]:
        """The shards of the lane's last export. Raises BadInput when nothing was exported yet."""
        rows = await self.rows(
            "select shards from pipeline_iterations where lane = ? and shards is not null order by number desc limit 1",
            [lane],
        )
        if not rows:
            raise BadInput(f"lane {lane}: nothing was exported yet, so there are no shards")
        return tuple(Artifact.model_validate(one) for one in rows[0]["shards"])

    async def cancel(self, task: str, reason: str) -> list[Recorded]:
        """Ends a task, wherever it stands; the facts, none when it had ended already."""
        return await self.ask(CancelTask(task=task, reason=reason))

    async def wait(self, task: str, within_s: float | None = None) -> TaskFinished:
        """The task's completion, with its files and evidence. Raises TaskEnded when it was given up or cancelled,
        TimeoutError after `within_s`."""
        log, pattern = JetStreamLog(await self._connected()), Ref("selfplay-orch", "task", task).pattern
        read_to = 0
        async with asyncio.timeout(within_s):
            while True:
                for raw in await log.load(pattern, read_to):
                    read_to = raw.sequence
                    one = heard(raw)
                    match one.fact if one is not None else None:
                        case TaskFinished(superseded=False) as finished:
                            return finished
                        case TaskAbandoned(reason=reason) | TaskCancelled(reason=reason):
                            raise TaskEnded(f"task {task}: {reason}")
                await asyncio.sleep(0.25)

    def task(
        self, kind: str, lane: str, *, timeout_s: float = 3600.0, work: Mapping[str, Any] | None = None, task: str = ""
    ) -> OwnTask:
        """Work in this very process, recorded as a task: a context manager, and a decorator of async functions."""
        return OwnTask(self, kind, lane, timeout_s, dict(work or {}), task)

    def training_slot(
        self, lane: str, *, priority: int = 0, lease_s: float = 90.0, within_s: float | None = None, holder: str = ""
    ) -> TrainingSlot:
        """The right to train the lane, while the context lasts and the slot is not lost."""
        return TrainingSlot(self, lane, priority=priority, lease_s=lease_s, within_s=within_s, holder=holder)

    async def keep(self, path: Path, role: str, store: str = "nats://ARTIFACTS") -> Artifact:
        """Brings a file to the store and returns its reference."""
        sha256, size = await asyncio.to_thread(sha256_of, path)
        home = await open_store(store, (await self._connected()).jetstream(timeout=5))
        return Artifact(name=path.name, role=role, sha256=sha256, bytes=size, url=await home.put(path, sha256))


class OwnTask:
    """One piece of work of the caller's: opened, then finished with evidence, or failed with the exception's reason.

    As a context manager: put numbers into `evidence` and files in with `await task.file(path, role)`. As a decorator: the
    mapping that the function returns is the evidence, and every call is a task of its own.
    """

    def __init__(self, client: Work, kind: str, lane: str, timeout_s: float, work: dict[str, Any], task: str) -> None:
        self._client, self.kind, self.lane, self._timeout_s, self._work = client, kind, lane, timeout_s, work
        self._given = task
        self.task = task or f"{lane}-{kind}-{clock.new_id()[:8]}"
        self.node = f"outside-{socket.gethostname()}-{os.getpid()}"[:120]
        self.evidence: dict[str, Any] = {}
        self.files: list[Artifact] = []
        self._began = 0.0

    async def file(self, path: Path, role: str) -> Artifact:
        """Stores a file that the work made; it stands in the completion."""
        artifact = await self._client.keep(path, role)
        self.files.append(artifact)
        return artifact

    async def __aenter__(self) -> Self:
        await self._client.send(OpenTask(task=self.task, spec=self._spec(), by=who(), node=self.node))
        self._began = time.monotonic()
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            await self._close(f"{type(error).__name__}: {error}")
            return
        if not self.evidence and not self.files:
            missing = NoEvidence(f"task {self.task} ended without evidence; say what was done in task.evidence")
            await self._close(str(missing))
            raise missing
        await self._close("")

    def _spec(self) -> TaskSpec:
        return TaskSpec(
            kind=self.kind, lane=self.lane, seed=seed_of(self.task), work=self._work, argv=(), timeout_s=self._timeout_s,
            outside=True,
        )  # fmt: skip

    async def _close(self, failure: str) -> None:
        order = CloseTask(
            task=self.task, spec=self._spec(), by=who(), node=self.node, seconds=time.monotonic() - self._began,
            files=tuple(self.files), evidence=self.evidence, failure=failure[:2000],
        )  # fmt: skip
        await self._client.send(order)

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        @functools.wraps(function)
        async def run(*args: P.args, **kwargs: P.kwargs) -> R:
            async with OwnTask(self._client, self.kind, self.lane, self._timeout_s, self._work, self._given) as task:
                result = await function(*args, **kwargs)
                if isinstance(result, Mapping):
                    task.evidence |= result
                return result

        return run
