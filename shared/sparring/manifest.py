"""A data set's manifest: the log holds the list once, in the fact that sealed it; orders carry its place and its hash.

A window of a week has tens of thousands of batches: in every order that needs it the list would be megabytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from sparring.contracts.parts import Artifact
from sparring.contracts.sync import BatchRef, DatasetSealed
from sparring.envelope import recorded
from sparring.errors import ArtifactMissing, HashMismatch, LogUnavailable
from sparring.log.interface import Log
from sparring.subjects import Ref

ROLE, SCHEME = "manifest", "log:"


def manifest_hash(iteration: str, batches: Sequence[BatchRef]) -> str:
    """SHA-256 of the canonical JSON of the iteration and its batches' names and hashes, sorted by name."""
    listed = [[one.batch, one.sha256] for one in batches]
    return hashlib.sha256(json.dumps([iteration, listed], separators=(",", ":")).encode()).hexdigest()


def reference(sealed: DatasetSealed) -> Artifact:
    """The manifest as an input: `log:<iteration>`, by its hash."""
    return Artifact(name=sealed.iteration, role=ROLE, sha256=sealed.dataset, bytes=0, url=SCHEME + sealed.iteration)


def is_one(artifact: Artifact) -> bool:
    return artifact.role == ROLE and artifact.url.startswith(SCHEME)


async def load(log: Log, artifact: Artifact) -> tuple[Artifact, ...]:
    """The batches that the manifest lists.

    Raises ArtifactMissing when the log has no such data set, HashMismatch when it is another one, LogUnavailable.
    """
    ref = Ref("sync", "dataset", artifact.url.removeprefix(SCHEME))
    raws = await log.load(ref.pattern)
    if (raws[-1].sequence if raws else 0) < await log.last(ref.pattern):
        raise LogUnavailable(f"{artifact.url}: a replica of the log lags behind")
    others: list[str] = []
    for raw in raws:
        if raw.subject == ref.subject(DatasetSealed.__name__):
            fact = recorded(raw.sequence, raw.subject, raw.headers, raw.body, raw.at).fact
            assert isinstance(fact, DatasetSealed)
            found = manifest_hash(fact.iteration, fact.batches)
            if found != artifact.sha256:
                others.append(found)
                continue
            return tuple(
                Artifact(name=one.batch, role="games", sha256=one.sha256, bytes=0, url=one.url) for one in fact.batches
            )
    if others:
        raise HashMismatch(f"{artifact.url} lists {', '.join(others)}, {artifact.sha256} was asked for")
    archived = "it was archived meanwhile" if raws else "it was never sealed"
    raise ArtifactMissing(f"{artifact.url}: the stream holds no such data set: {archived}")
