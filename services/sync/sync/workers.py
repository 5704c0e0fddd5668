"""What custody needs of the outside: recomputing a hash, and deleting what a fact has retired."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sparring.artifacts import StoreUnavailable
from sparring.contracts.sync import RecordGames, ReportStored, SealDataset
from sparring.errors import ArtifactMissing

SWEEP_S = 5.0
# no upload is under way for so long: a grant's lease ends it
HALF_UPLOADS = timedelta(hours=6)
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
        await shell.pause(SWEEP_S)


async def sweep_half_uploads(shell: Any) -> None:
    """Deletes what uploads left whose process or connection died: no name leads to it, and nobody else ever would."""
    while not shell.stopping.is_set():
        if shell.leads:
            try:
                swept = await shell.artifacts.sweep(HALF_UPLOADS)
            except (StoreUnavailable, OSError) as error:
                shell.log.warning("half uploads could not be swept; it is tried again", error=str(error))
            else:
                if swept:
                    shell.log.info("half uploads were swept", uploads=swept)
        await shell.pause(HALF_UPLOADS.total_seconds() / 6)
