"""Runs one task from its order to its spooled outcome."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from node_agent.child import Child, Result, TaskFailure
from node_agent.inputs import fetched
from node_agent.limits import Limits
from node_agent.roster import Running
from sparring import telemetry
from sparring.artifacts import sha256_of
from sparring.backoff import doubled_s
from sparring.contracts.node_agent import StartTask
from sparring.contracts.parts import Artifact, Check
from sparring.contracts.selfplay_orch import ReportTaskFailed, ReportTaskFinished, ReportTaskStarted
from sparring.contracts.sync import RecordGames
from sparring.ending import ended
from sparring.errors import Transient

if TYPE_CHECKING:
    from node_agent.agent import Agent

ENDINGS = ("TaskFinished", "TaskFailed", "TaskOrphaned", "TaskCancelled", "TaskAbandoned")
THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
VERIFY_S = 120.0
CGROUP_STAYS = "a cgroup can't be removed; the agent's next start tries again"
AGAIN_S, MOST_AGAIN_S = 0.5, 30.0
Report = ReportTaskFinished | ReportTaskFailed


def seed_of(task: str, attempt: int) -> int:
    """Seeds include the attempt: the same task played again is other games."""
    return int.from_bytes(hashlib.sha256(f"{task}-{attempt}".encode()).digest()[:4], "big") >> 1


async def run_task(agent: Agent, running: Running) -> None:
    """Never raises: whatever happens becomes a report, and the seat is free once its owner has seen it."""
    order, spec = running.order, running.order.spec
    folder = agent.folder / "work" / running.key
    try:
        with telemetry.span(f"run {spec.kind}", traceparent=running.traceparent, correlation=spec.iteration,
                            task=order.task, attempt=order.attempt, kind_of_task=spec.kind,
                            node=agent.settings.node):  # fmt: skip
            report = await _reported(agent, running, folder)
            # first: what the task leaves behind may be what fills the disk
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            seen = await _written(agent, running, report)
        await seen.wait()
    except Exception:
        agent.log.error("an outcome could not be said; its task counts as orphaned", task=order.task, exc_info=True)
    # not when the agent itself ends meanwhile: its next life reports what has no outcome
    agent.running.forget(running)


async def _reported(agent: Agent, running: Running, folder: Path) -> Report:
    """What is to be said of the task once it has ended, in whatever way."""
    order = running.order
    try:
        agent.spool.put(
            ReportTaskStarted(task=order.task, attempt=order.attempt, node=agent.settings.node),
            key=f"started-{running.key}",
            attempt=order.attempt,
            names=("TaskStarted", *ENDINGS),
            correlation=order.spec.iteration,
        )
        result, files = await _run(agent, running, folder)
        return _finished(agent, running, files, result.evidence)
    except TaskFailure as failure:
        return _failed(agent, running, str(failure), permanent=failure.permanent)
    except Exception as error:
        agent.log.error("the agent failed at a task", task=order.task, exc_info=True)
        return _failed(agent, running, f"agent: {type(error).__name__}: {error}")


async def _written(agent: Agent, running: Running, report: Report) -> asyncio.Event:
    """The report on disk, however long the disk is full: a task that nobody hears of again would keep its seat."""
    kind = "finished" if isinstance(report, ReportTaskFinished) else "failed"
    tries = 0
    while True:
        try:
            return agent.spool.put(report, key=f"{kind}-{running.key}", attempt=report.attempt, names=ENDINGS,
                                   correlation=running.order.spec.iteration)  # fmt: skip
        except OSError as error:
            agent.log.error("an outcome could not be written down yet", task=report.task, error=str(error))
            await asyncio.sleep(doubled_s(AGAIN_S, tries, MOST_AGAIN_S))
            tries += 1


async def _run(agent: Agent, running: Running, folder: Path) -> tuple[Result, list[Artifact]]:
    spec, out = running.order.spec, folder / "out"
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    out.mkdir(parents=True)
    async with _guarded(agent, running), fetched(agent, running) as inputs:
        job = folder / "job.json"
        job.write_text(json.dumps(job_of(agent.settings.node, running.order, inputs)))
        argv = [part.replace("{job}", str(job)).replace("{out}", str(out)) for part in spec.argv]
        result = await _ran(agent, running, argv, folder)
        return result, await _taken_in(agent, running, out, result)


@asynccontextmanager
async def _guarded(agent: Agent, running: Running) -> AsyncIterator[None]:
    """Exclusive work holds its right from the first input to the last file that is stored; without it the task is stopped."""
    if not running.order.spec.exclusive:
        yield
        return
    guard = asyncio.create_task(agent.guard(running))
    try:
        yield
    finally:
        # one that went on would keep the slot of a task that has ended
        await ended(guard)


async def _ran(agent: Agent, running: Running, argv: list[str], folder: Path) -> Result:
    """The program under its limits, on its cores and cards."""
    spec, settings = running.order.spec, agent.settings
    env = THREADS | {"TRACEPARENT": telemetry.current_traceparent()}
    if running.cancelled:
        raise TaskFailure(running.cancelled)
    with agent.places.taken(spec.gpu) as (cores, cards):
        cgroup = agent.cgroups.make(running.key, spec.memory_bytes)
        limits = Limits(settings.nice, spec.memory_bytes, cores, cards, cgroup)
        running.child = Child(argv, folder, env, limits, running.mark)
        running.child.on_started = lambda: _noted(agent, running)
        try:
            return await running.child.run(spec.timeout_s, lambda done, of: agent.beats.progressed(running, done, of))
        finally:
            # its process id may be another's by the time that the task is told to stop
            running.child = None
            if cgroup is not None and not await asyncio.shield(asyncio.to_thread(agent.cgroups.drop, cgroup)):
                agent.log.error(CGROUP_STAYS, cgroup=str(cgroup))


def _noted(agent: Agent, running: Running) -> None:
    try:
        agent.running.note(running)
    except OSError as error:
        # an earlier note stands: the agent's next life finds the family by its mark
        agent.log.error("a program's process id could not be written down", task=running.order.task, error=str(error))


def job_of(node: str, order: StartTask, inputs: dict[str, list[str]]) -> dict[str, Any]:
    """What the program reads; inputs whose name is a plural are lists, the others one path or null."""
    spec = order.spec
    return {
        "task": order.task,
        "attempt": order.attempt,
        "kind": spec.kind,
        "lane": spec.lane,
        "node": node,
        "seed": seed_of(order.task, order.attempt),
        "game": spec.game,
        "game_params": spec.game_params,
        "params": spec.params,
        "work": spec.work,
        "inputs": {
            name: paths if name.endswith("s") else (paths[0] if paths else None) for name, paths in inputs.items()
        },
    }


async def _taken_in(agent: Agent, running: Running, out: Path, result: Result) -> list[Artifact]:
    """Checks every file that the program names, and brings it where it belongs."""
    files = []
    for told in result.files:
        path = out / str(told.get("name", ""))
        if not path.is_file() or out.resolve() not in path.resolve().parents:
            raise TaskFailure(f"the result names {told.get('name')!r}, which is not in the output folder")
        sha256, size = await asyncio.to_thread(sha256_of, path)
        if sha256 != told.get("sha256", sha256) or size != told.get("bytes", size):
            raise TaskFailure(f"{path.name} has SHA-256 {sha256[:12]}, the result says {str(told.get('sha256'))[:12]}")
        artifact = Artifact(name=path.name, role=str(told.get("role", "file")), sha256=sha256, bytes=size)
        if running.order.spec.kind == "selfplay" and artifact.role == "games":
            await _record_games(agent, running, path, artifact, result)
        else:
            artifact = artifact.model_copy(update={"url": await _stored(agent, running, path, sha256)})
        files.append(artifact)
    return files


async def _stored(agent: Agent, running: Running, path: Path, sha256: str) -> str:
    """The URL, as soon as the store takes it. Raises TaskFailure once the task is stopped and its grace is over."""
    try:
        await agent.cache.keep(path, sha256)
    except OSError as error:
        agent.log.warning("a result is not kept in the cache", file=path.name, error=str(error))
    tries = 0
    while True:
        try:
            return await running.unless(running.over, agent.store.put(path, sha256))
        except (Transient, OSError) as error:
            agent.log.warning("a result waits for the store", file=path.name, error=str(error))
            await running.unless(running.over, asyncio.sleep(doubled_s(AGAIN_S, tries, MOST_AGAIN_S)))
            tries += 1


async def _record_games(agent: Agent, running: Running, path: Path, artifact: Artifact, result: Result) -> None:
    """The games stay on this node until custody is confirmed; their record is on disk before the task is done."""
    order, spec, evidence = running.order, running.order.spec, result.evidence
    check = await _verified(agent, running, path, evidence)
    record = RecordGames(
        batch=running.key, lane=spec.lane, task=order.task, attempt=order.attempt, node=agent.settings.node,
        ephemeral=agent.settings.ephemeral, model=spec.model, sha256=artifact.sha256, bytes=artifact.bytes,
        games=int(evidence.get("games", 0)), positions=int(evidence.get("positions", 0)), check=check,
    )  # fmt: skip
    kept = agent.custody.keep(record, path, spec.iteration)
    agent.log.info("games recorded", batch=running.key, games=record.games, file=str(kept))


async def _verified(agent: Agent, running: Running, path: Path, evidence: dict[str, Any]) -> Check:
    """The lane's own verification; without one, what the program said of itself."""
    spec = running.order.spec
    if not spec.verify:
        return Check(ok=True, games=int(evidence.get("games", 0)), positions=int(evidence.get("positions", 0)),
                     policy_coverage=evidence.get("policy_coverage"), mean_plies=evidence.get("mean_plies"))  # fmt: skip
    argv = [part.replace("{file}", str(path.resolve())) for part in spec.verify]
    folder = path.parent.parent / "verify"
    folder.mkdir(exist_ok=True)
    try:
        told = await Child(argv, folder, THREADS, Limits(agent.settings.nice), f"{running.mark}/verify").run(
            VERIFY_S, _unheard
        )
        return Check.model_validate({name: told.raw[name] for name in Check.model_fields if name in told.raw})
    except (TaskFailure, ValidationError) as failure:
        return Check(ok=False, reason=f"the lane's verification: {failure}"[:500])


def _unheard(done: float, of: float) -> None:
    """A verification's progress is nobody's reading."""


def _finished(
    agent: Agent, running: Running, files: Sequence[Artifact], evidence: dict[str, Any]
) -> ReportTaskFinished:
    order = running.order
    return ReportTaskFinished(
        task=order.task, attempt=order.attempt, node=agent.settings.node,
        seconds=time.monotonic() - running.began, files=tuple(files), evidence=evidence,
    )  # fmt: skip


def _failed(agent: Agent, running: Running, reason: str, *, permanent: bool = False) -> ReportTaskFailed:
    order = running.order
    agent.log.warning("a task failed", task=order.task, attempt=order.attempt, reason=reason[:500])
    return ReportTaskFailed(task=order.task, attempt=order.attempt, node=agent.settings.node, reason=reason[:2000],
                            permanent=permanent)  # fmt: skip
