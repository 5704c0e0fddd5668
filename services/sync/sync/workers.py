"""What custody needs of the outside: recomputing a hash, and deleting what a fact has retired."""

from __future__ import annotations

import asyncio
from typing import Any

from sparring.artifacts import StoreUnavailable
from sparring.contracts.sync import RecordGames, ReportStored, SealDataset
from sparring.errors import ArtifactMissing

SWEEP_S = 5.0
AT_ONCE_FAILED = 3


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
    """Deletes the bytes of retired batches; repeated after a crash, deleting twice changes nothing.

    The store keeps equal content once, batches are kept by their cause: what another one needs stays.
    """
    while not shell.stopping.is_set():
        failed, waiting = 0, shell.picture.undeleted
        for replica, url in list(waiting.items()) if shell.leads else ():
            if shell.picture.reaches(url):
                waiting.pop(replica, None)
                continue
            if shell.picture.expects(url):
                continue
            try:
                await shell.artifacts.delete(url)
            except (StoreUnavailable, OSError) as error:
                shell.log.error("retired bytes could not be deleted; retiring waits once too many lie there",
                                replica=replica, undeleted=len(waiting), error=str(error))  # fmt: skip
                failed += 1
                # behind those that may go well
                waiting[replica] = waiting.pop(replica)
                if failed == AT_ONCE_FAILED:
                    # the store is away
                    break
                continue
            waiting.pop(replica, None)
        try:
            async with asyncio.timeout(SWEEP_S):
                await shell.stopping.wait()
        except TimeoutError:
            continue
