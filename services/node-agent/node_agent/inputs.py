"""A task's inputs as local files: fetched several at a time, held until the task has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from node_agent.child import TaskFailure
from node_agent.roster import Running
from sparring import manifest
from sparring.backoff import doubled_s
from sparring.contracts.parts import Artifact
from sparring.errors import ArtifactMissing, HashMismatch, Transient
from sparring.log.jetstream import JetStreamLog

if TYPE_CHECKING:
    from node_agent.agent import Agent

T = TypeVar("T")
TRIES = 8
AT_ONCE = 8


@asynccontextmanager
async def fetched(agent: Agent, running: Running) -> AsyncIterator[dict[str, list[str]]]:
    """Paths by the input's name. Raises TaskFailure when one can't be had, or the task is stopped meanwhile."""
    held: list[str] = []
    room = asyncio.Semaphore(AT_ONCE)

    async def one(artifact: Artifact) -> str:
        async with room:
            path: Path = await _tried(agent, running, artifact, partial(agent.cache.fetch, artifact))
            held.append(artifact.sha256)
            return str(path.resolve())

    try:
        listed = {name: await _listed(agent, running, given) for name, given in running.order.spec.inputs.items()}
        yield await _all(listed, one)
    finally:
        for sha256 in held:
            agent.cache.release(sha256)


async def _all(
    listed: Mapping[str, list[Artifact]], one: Callable[[Artifact], Coroutine[None, None, str]]
) -> dict[str, list[str]]:
    """Everything, or the first failure, with nothing left running."""
    try:
        async with asyncio.TaskGroup() as group:
            asked = {name: [group.create_task(one(artifact)) for artifact in many] for name, many in listed.items()}
    except BaseExceptionGroup as group:
        # a group in a group's place: `except*` keeps it wrapped before Python 3.11.4
        raise next((one for one in group.exceptions if isinstance(one, TaskFailure)), group.exceptions[0]) from None
    return {name: [task.result() for task in tasks] for name, tasks in asked.items()}


async def _listed(agent: Agent, running: Running, given: tuple[Artifact, ...]) -> list[Artifact]:
    """A manifest stands for what it lists."""
    log, found = JetStreamLog(agent.nc), list[Artifact]()
    for one in given:
        found += await _tried(agent, running, one, partial(manifest.load, log, one)) if manifest.is_one(one) else [one]
    return found


async def _tried(agent: Agent, running: Running, artifact: Artifact, get: Callable[[], Coroutine[Any, Any, T]]) -> T:
    for attempt in range(TRIES):
        if running.cancelled:
            raise TaskFailure(running.cancelled)
        try:
            return await running.unless(running.asked, get())
        except Transient as error:
            agent.log.warning("an input could not be fetched yet", name=artifact.name, error=str(error))
            await running.unless(running.asked, asyncio.sleep(doubled_s(0.5, attempt, 30.0)))
        except (ArtifactMissing, HashMismatch, OSError) as error:
            raise TaskFailure(f"input {artifact.name}: {error}") from error
    raise TaskFailure(f"input {artifact.name} could not be fetched {TRIES} times")
