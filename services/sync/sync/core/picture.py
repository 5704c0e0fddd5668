"""What the planner knows: batches that are not yet safe, each lane's shelf of admitted ones, and the nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sparring.contracts.base import Fact
from sparring.contracts.health import (
    BreakerClosed,
    BreakerOpened,
    NodeDraining,
    NodeJoined,
    NodeLost,
    NodePreemptionNoticed,
)
from sparring.contracts.pipeline import ExportFinished, IterationClosed, LaneEdited, LaneRegistered, QualityRefused
from sparring.contracts.sync import (
    BatchAdmitted,
    BatchQuarantined,
    BatchRef,
    BatchRetired,
    DatasetSealed,
    GamesRefused,
    ShardsRetired,
)
from sparring.decider import Recorded, replace
from sparring.picture import StoredPicture
from sync.core.batch import Batch, evolve
from sync.core.quota import Quota
from sync.core.quota import evolve as evolve_quota


@dataclass
class Shelf:
    """A lane's admitted batches in the order of admission; `games` counts all ever admitted, `consumed` those of them that
    a data set took in."""

    games: int = 0
    positions: int = 0
    batches: dict[str, BatchRef] = field(default_factory=dict)
    admitted_at: dict[str, datetime] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    sealed: int = 0
    consumed: int = 0


@dataclass
class Shards:
    """What an export made of a data set; spent once its iteration is closed."""

    lane: str
    urls: tuple[str, ...]
    bytes: int
    spent: bool = False


@dataclass
class Node:
    """`link_until`: its way to the store failed so often that health opened its breaker; one trial from then on."""

    lost_at: datetime | None = None
    ephemeral: bool = False
    draining: bool = False
    link_until: datetime | None = None

    def transfers(self, most: int, now: datetime) -> int:
        """How many may run: none while the link's breaker is open, one as a trial. A node that leaves has no time to wait."""
        if self.link_until is None or self.draining:
            return most
        return 1 if now >= self.link_until else 0


@dataclass
class Everything:
    """`open` are batches on their nodes or on their way, `lost` the newest that may be found again; `by_hand` are lanes
    whose batches a person brings."""

    open: dict[str, Batch] = field(default_factory=dict)
    lost: dict[str, Batch] = field(default_factory=dict)
    releasing: dict[str, Batch] = field(default_factory=dict)
    shelves: dict[str, Shelf] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    quota: Quota = field(default_factory=Quota)
    doomed: dict[str, str] = field(default_factory=dict)
    shards: dict[str, Shards] = field(default_factory=dict)
    by_hand: set[str] = field(default_factory=set)

    def held_back(self, batch: Batch) -> bool:
        """Whether the batch stays where it is until a person asks for it; not where it may vanish with its node. Asked once
        is asked: only its urgency ends."""
        node = self.nodes.get(batch.node, Node())
        asked = batch.hastened_until is not None
        return batch.lane in self.by_hand and not (asked or batch.ephemeral or node.ephemeral or node.draining)


RELEASING_KEPT = 200
DOOMED_KEPT = 500
# what a node that was cut off for long may bring back
LOST_KEPT = 1_000


class CustodyPicture(StoredPicture[Everything]):
    """A fold over sync's own facts and the nodes' lives; what is safe leaves it."""

    kind = Everything

    def __init__(self) -> None:
        super().__init__()
        # releases that this process has still to order: when it did last, and how often; knowledge of a process
        self.telling: dict[str, tuple[datetime | None, int]] = {}
        # bytes that a fact has retired and this process has still to delete, by replica
        self.undeleted: dict[str, str] = {}
        # how many batches on shelves and shards of exports lie in the store under that name: equal content lies there once
        self._reached = Counter[str]()

    def load(self, data: Any) -> None:
        super().load(data)
        self._reached = Counter()
        for shelf in self.all.shelves.values():
            self._reach(one.url for one in shelf.batches.values())
        for shards in self.all.shards.values():
            self._reach(shards.urls)
        self.telling = dict.fromkeys(self.all.releasing, (None, 0))
        self.undeleted = dict(self.all.doomed)

    def shelf(self, lane: str) -> Shelf:
        return self.all.shelves.setdefault(lane, Shelf())

    def reaches(self, url: str) -> bool:
        """Whether a batch on a shelf or an export's shards has this content: its own retirement will doom it again."""
        return self._reached[_named(url)] > 0

    def expects(self, url: str) -> bool:
        """Whether a batch that is not yet safe has this content, and may be admitted with what lies there."""
        name = _named(url)
        return any(one.sha256 == name for one in self.all.open.values())

    def _reach(self, urls: Iterable[str]) -> None:
        self._reached.update(_named(one) for one in urls)

    def _leave(self, urls: Iterable[str]) -> None:
        for name in map(_named, urls):
            self._reached[name] -= 1
            if self._reached[name] <= 0:
                del self._reached[name]

    def apply(self, recorded: Recorded) -> None:
        fact = recorded.fact
        match fact.owner, fact.entity:
            case "sync", "batch":
                self._batch(recorded)
            case "sync", "quota":
                self.all.quota = evolve_quota(self.all.quota, recorded)
            case "sync", "dataset":
                self._dataset(recorded)
            case "health", "node":
                self._node(recorded)
            case "health", "breaker":
                self._link(recorded.fact)
            case "pipeline", "iteration":
                self._iteration(recorded)
            case "pipeline", "lane":
                self._lane(fact)

    def _lane(self, fact: Fact) -> None:
        match fact:
            case LaneRegistered(lane=lane, spec=spec) | LaneEdited(lane=lane, spec=spec):
                (self.all.by_hand.discard if "sync" in spec.auto else self.all.by_hand.add)(lane)

    def _batch(self, recorded: Recorded) -> None:
        fact = recorded.fact
        batch = evolve(self.all.open.get(fact.id) or self.all.lost.get(fact.id) or Batch(), recorded)
        match fact:
            case BatchAdmitted():
                shelf = self.shelf(fact.lane)
                shelf.games += fact.games
                shelf.positions += fact.positions
                shelf.batches[fact.batch] = BatchRef(batch=fact.batch, sha256=fact.sha256, url=fact.url,
                                                     games=fact.games, positions=fact.positions)  # fmt: skip
                shelf.admitted_at[fact.batch] = recorded.at
                self._reach([fact.url])
                self._release(fact.id, batch)
            case BatchQuarantined() if batch.url:
                self._release(fact.id, batch)
            case GamesRefused():
                self._release(fact.id, replace(batch, node=fact.node, sha256=fact.sha256))
            case BatchRetired():
                self._retire(fact)
        self._place(fact.id, batch)

    def _place(self, name: str, batch: Batch) -> None:
        if batch.state in ("recorded", "granted"):
            self.all.open[name] = batch
        else:
            self.all.open.pop(name, None)
        if batch.state == "lost":
            self.all.lost[name] = batch
            while len(self.all.lost) > LOST_KEPT:
                del self.all.lost[next(iter(self.all.lost))]
        else:
            self.all.lost.pop(name, None)

    def _release(self, name: str, batch: Batch) -> None:
        """The node's copy may go: the store has its content, admitted or quarantined, or it never counted."""
        self.all.releasing[name] = batch
        self.telling[name] = (None, 0)
        while len(self.all.releasing) > RELEASING_KEPT:
            oldest = next(iter(self.all.releasing))
            self.all.releasing.pop(oldest)
            self.telling.pop(oldest, None)

    def _retire(self, fact: BatchRetired) -> None:
        shelf = self.shelf(fact.lane)
        if fact.batch in shelf.batches:
            self._leave([shelf.batches.pop(fact.batch).url])
        shelf.admitted_at.pop(fact.batch, None)
        shelf.used.pop(fact.batch, None)
        self._doom(fact.batch, fact.replicas)

    def _doom(self, name: str, urls: tuple[str, ...]) -> None:
        for number, url in enumerate(urls):
            self.all.doomed[f"{name}/{number}"] = self.undeleted[f"{name}/{number}"] = url
        while len(self.all.doomed) > DOOMED_KEPT:
            oldest = next(iter(self.all.doomed))
            self.all.doomed.pop(oldest)
            self.undeleted.pop(oldest, None)

    def _iteration(self, recorded: Recorded) -> None:
        match recorded.fact:
            case (
                ExportFinished(iteration=name, lane=lane, shards=shards)
                | QualityRefused(iteration=name, lane=lane, shards=shards)
            ) if shards:
                # those of an export whose quality was refused go with the iteration's last ones
                known = self.all.shards.setdefault(name, Shards(lane, (), 0))
                known.urls += tuple(one.url for one in shards)
                self._reach(one.url for one in shards)
                known.bytes += sum(one.bytes for one in shards)
            case IterationClosed(iteration=name) if name in self.all.shards:
                self.all.shards[name].spent = True

    def _dataset(self, recorded: Recorded) -> None:
        match recorded.fact:
            case DatasetSealed(lane=lane, batches=batches, new_games=new_games):
                shelf = self.shelf(lane)
                shelf.sealed += 1
                shelf.consumed += new_games
                for one in batches:
                    shelf.used[one.batch] = shelf.sealed
                self._passed_over(shelf)
            case ShardsRetired(iteration=name, replicas=replicas):
                if name in self.all.shards:
                    self._leave(self.all.shards.pop(name).urls)
                self._doom(name, replicas)

    @staticmethod
    def _passed_over(shelf: Shelf) -> None:
        """What is older than the newest one listed and was never listed never will be: no data set reaches it."""
        older = False
        for name in reversed(shelf.batches):
            older = older or shelf.used.get(name) == shelf.sealed
            if older:
                shelf.used.setdefault(name, shelf.sealed)

    def _link(self, fact: object) -> None:
        match fact:
            case BreakerOpened(scope="link", node=node, until=until):
                self.all.nodes.setdefault(node, Node()).link_until = until
            case BreakerClosed(scope="link", node=node):
                self.all.nodes.setdefault(node, Node()).link_until = None

    def _node(self, recorded: Recorded) -> None:
        node = self.all.nodes.setdefault(recorded.fact.id, Node())
        match recorded.fact:
            case NodeJoined(ephemeral=ephemeral):
                self.all.nodes[recorded.fact.id] = Node(ephemeral=ephemeral)
            case NodeLost(reason=reason) if reason != "rebooted":
                node.lost_at = recorded.at
            case NodeDraining() | NodePreemptionNoticed():
                node.draining = True


def _named(url: str) -> str:
    """What the store knows the content by: its SHA-256, whatever home the URL names."""
    return url.rstrip("/").rpartition("/")[2]
