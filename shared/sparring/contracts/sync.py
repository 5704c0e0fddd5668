"""The published language of `sync`: which batch of games lies where, and which data set it went into."""

from __future__ import annotations

from sparring.contracts.base import Count, Fact, Field, Instant, Name, Order, Part, Seconds, Sha256
from sparring.contracts.parts import Check


class _Batch(Fact):
    batch: Name


class BatchRef(Part):
    """A batch in a manifest."""

    batch: Name
    sha256: Sha256
    url: str
    games: Count
    positions: Count


class GamesRecorded(_Batch, owner="sync", entity="batch", key="batch"):
    """A batch exists on its node; its identity is (task, attempt), its SHA-256 proves the content."""

    lane: Name
    task: Name
    attempt: Count
    node: Name
    ephemeral: bool = False
    model: str = Field(description="SHA-256 of the model that played, '' is generation 0")
    sha256: Sha256
    bytes: Count
    games: Count
    positions: Count
    check: Check
    superseded: bool = False


class GamesRefused(_Batch, owner="sync", entity="batch", key="batch"):
    """The record carried no evidence or contradicts itself: the games count nowhere, their node need not keep them."""

    lane: Name
    reason: str
    node: str = Field(default="", description="who holds them; '' in facts of builds that did not say it")
    sha256: str = Field(default="", description="of the content; '' in facts of builds that did not say it")


class TransferGranted(_Batch, owner="sync", entity="batch", key="batch"):
    node: Name
    grant: Count
    until: Instant
    urgency: float


class TransferAdmitted(Fact, owner="sync", entity="quota", key="quota"):
    """The quota's half of a grant; `freed` are grants that ended since the last one."""

    quota: Name = "main"
    batch: Name
    node: Name
    freed: tuple[str, ...] = ()
    running: Count
    limit: Count


class TransferFailed(_Batch, owner="sync", entity="batch", key="batch"):
    grant: Count
    reason: str
    missing: bool | None = Field(default=None, description="the node has no such batch; null: it said nothing of it")


class BatchStored(_Batch, owner="sync", entity="batch", key="batch"):
    """The receiver recomputed the hash of what lies in the store."""

    url: str
    sha256: Sha256
    bytes: Count


class BatchAdmitted(_Batch, owner="sync", entity="batch", key="batch"):
    lane: Name
    games: Count
    positions: Count
    model: str
    sha256: Sha256
    url: str
    check: Check


class BatchQuarantined(_Batch, owner="sync", entity="batch", key="batch"):
    lane: Name
    games: Count
    reason: str


class BatchLost(_Batch, owner="sync", entity="batch", key="batch"):
    """Nobody holds a replica; the proof says how that is known."""

    lane: Name
    games: Count
    proof: str


class BatchRetired(_Batch, owner="sync", entity="batch", key="batch"):
    """No manifest or rule reaches it any more: its bytes were deleted from the replicas listed."""

    lane: Name
    games: Count
    replicas: tuple[str, ...]
    reason: str


class DatasetSealed(Fact, owner="sync", entity="dataset", key="iteration"):
    """A data set is this list; its identity is the manifest's SHA-256."""

    iteration: Name
    lane: Name
    dataset: Sha256
    batches: tuple[BatchRef, ...]
    games: Count
    positions: Count
    new_games: Count
    new_positions: Count
    attempt: Count = Field(
        default=1, description="which one of the iteration: the quality of an earlier one was refused"
    )
    left_out: Count = Field(
        default=0,
        description="batches of the window, the oldest ones, that one list can't hold; the new ones among them count as new",
    )


class DatasetRefused(Fact, owner="sync", entity="dataset", key="iteration"):
    iteration: Name
    lane: Name
    reason: str


class ShardsRetired(Fact, owner="sync", entity="dataset", key="iteration"):
    """The iteration that trained on these shards is closed: they can be exported again from the data set."""

    iteration: Name
    lane: Name
    replicas: tuple[str, ...]
    bytes: Count


class RecordGames(Order, owner="sync", entity="batch", key="batch"):
    batch: Name
    lane: Name
    task: Name
    attempt: Count
    node: Name
    ephemeral: bool = False
    model: str
    sha256: Sha256
    bytes: Count
    games: Count
    positions: Count
    check: Check
    url: str = Field(default="", description="where the recorder stored it itself: no node has it, none uploads it")


class ReportStored(Order, owner="sync", entity="batch", key="batch"):
    """The agent put the batch into the store; the owner checks."""

    batch: Name
    node: Name
    url: str
    sha256: Sha256
    bytes: Count


class ReportTransferFailed(Order, owner="sync", entity="batch", key="batch"):
    batch: Name
    grant: Count
    reason: str
    missing: bool = Field(default=False, description="the node has no such batch")


class SealDataset(Order, owner="sync", entity="dataset", key="iteration"):
    """Seals what is admitted of the lane: the newest rows that fit the window."""

    iteration: Name
    lane: Name
    window_positions: Count
    since_games: Count = Field(description="admitted games of the lane that earlier data sets had seen")
    read_to: Count = Field(default=0, description="the sequence up to which the sender had read")
    attempt: Count = Field(default=1, description="one more than the data sets of this iteration that were refused")


class SyncNow(Order, owner="sync", entity="batch", key="batch"):
    """Moves one batch to the front of the queue."""

    batch: Name
    for_s: Seconds = 600.0


class SyncHastened(_Batch, owner="sync", entity="batch", key="batch"):
    until: Instant
