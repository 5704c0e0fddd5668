"""The published language of the archivist, who moves old facts out of the stream: `spar log archive`."""

from __future__ import annotations

from sparring.contracts.base import Count, Fact, Name, Part, Sha256


class Segment(Part):
    """The facts in [first, last] as one Parquet file in the artifact store."""

    first: Count
    last: Count
    sha256: Sha256
    bytes: Count
    facts: Count
    url: str


class LogArchived(Fact, owner="archivist", entity="log", key="log"):
    """Everything up to `through` lies in the segments; the stream may be purged up to there."""

    log: Name = "main"
    through: Count
    segments: tuple[Segment, ...]
    carried: Count
