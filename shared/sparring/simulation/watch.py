"""Invariants of a run while it runs: what the log promises, and what has to happen within a bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparring.decider import Recorded

if TYPE_CHECKING:
    from sparring.simulation.cluster import Cluster


class Watcher:
    """`violations` says what was broken, each with the moment and the sequence."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.violations: list[str] = []

    def apply(self, one: Recorded) -> None: ...

    def look(self) -> None: ...
