"""What custody needs of the outside: recomputing a hash, and deleting what a fact has retired."""

from __future__ import annotations

import asyncio
from typing import Any

from sparring.artifacts import StoreUnavailable
from sparring.contracts.sync import RecordGames, ReportStored, SealDataset
from sparring.errors import ArtifactMissing

SWEEP_S = 5.0


async def digest_of(order: ReportStored | RecordGames, shell: Any) -> tuple[str, int] | None:
    """SHA-256 and bytes of what lies in the store; None when nothing does."""
    if not order.url:
        return None
    try:
        found: tuple[str, int] = await shell.artifacts.digest(order.url)
    except ArtifactMissing:
        return None
    return found


async def reached(order: SealDataset, shell: Any) -> None:
    """Waits until this replica's picture holds what the sender had seen."""
    await shell.hearing.reached(order.read_to)


async def delete_retired(shell: Any) -> None:
    """Deletes the bytes of retired batches; repeated after a crash, deleting twice changes nothing."""
    while not shell.stopping.is_set():
        waiting: dict[str, str] = shell.picture.undeleted
        for replica, url in list(waiting.items()) if shell.leads else ():
            try:
                await shell.artifacts.delete(url)
            except StoreUnavailable as error:
                shell.log.warning("retired bytes could not be deleted yet", replica=replica, error=str(error))
                break
            waiting.pop(replica, None)
        try:
            await asyncio.wait_for(shell.stopping.wait(), SWEEP_S)
        except TimeoutError:
            continue
