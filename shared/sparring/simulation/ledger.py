"""The log in memory as the simulator keeps it: facts as objects, entities folded as they come.

One process has no stale reads, so a decision is always taken on the newest states: what `EntityStore` reaches after
its retries. What may be refused there is refused here: facts of entities that were not read, orders obeyed before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sparring.contracts.base import Fact
from sparring.decider import Decider, Recorded
from sparring.entity_store import Because, Outcome
from sparring.envelope import Envelope, encode
from sparring.errors import NotTheOwner
from sparring.subjects import Ref, ref_of


class Entity:
    """An entity as of its last fact; `orders` are those it obeyed, `said` its facts' names with their highest attempt."""

    __slots__ = ("decider", "orders", "said", "sequence", "state")

    def __init__(self, decider: Decider[Any]) -> None:
        self.decider = decider
        self.state: Any = decider.initial
        self.sequence = 0
        self.orders: set[str] = set()
        self.said: dict[str, int | None] = {}


class Ledger:
    """Appends decisions; `facts[0]` has the sequence `first + 1`. Without `keep` only the newest facts stay."""

    def __init__(self, on_append: Callable[[Sequence[Recorded]], None], *, keep: bool = True) -> None:
        self.facts: list[Recorded] = []
        self.first = 0
        self.end = 0
        self._entities: dict[Ref, Entity] = {}
        self._on_append, self._keep = on_append, keep

    def entity(self, decider: Decider[Any], id: str) -> Entity:
        ref = decider.ref(id)
        found = self._entities.get(ref)
        return found if found is not None else self._entities.setdefault(ref, Entity(decider))

    def known(self, ref: Ref) -> Entity | None:
        return self._entities.get(ref)

    def exists(self, decider: Decider[Any], id: str) -> bool:
        found = self._entities.get(decider.ref(id))
        return found is not None and found.sequence > 0

    def entities(self) -> Iterator[tuple[Ref, Entity]]:
        yield from self._entities.items()

    def execute(
        self,
        entities: Sequence[tuple[Decider[Any], str]],
        decide: Callable[[Mapping[Ref, Any]], Sequence[Fact]],
        because: Because,
    ) -> Outcome:
        """One decision, one batch. Raises NotTheOwner for facts of entities that were not read."""
        read = {decider.ref(id): self.entity(decider, id) for decider, id in entities}
        if because.order:
            for one in read.values():
                if because.order in one.orders:
                    return Outcome(repeated=True)
        facts = decide({ref: one.state for ref, one in read.items()})
        if not facts:
            return Outcome()
        return Outcome(self._append(read, facts, because))

    def _append(self, read: Mapping[Ref, Entity], facts: Sequence[Fact], because: Because) -> tuple[Recorded, ...]:
        done = []
        for fact in facts:
            ref = ref_of(fact)
            entity = read.get(ref)
            if entity is None:
                raise NotTheOwner(f"{type(fact).__name__} of {ref} was decided without reading that entity")
            self.end += 1
            one = Recorded(self.end, because.now, fact, f"f{self.end}", because.order, because.cause,
                           because.correlation)  # fmt: skip
            entity.state = entity.decider.evolve(entity.state, one)
            entity.sequence = self.end
            if because.order:
                entity.orders.add(because.order)
            entity.said[type(fact).__name__] = vars(fact).get("attempt")
            done.append(one)
        self.facts += done
        self._on_append(done)
        return tuple(done)

    def after(self, sequence: int) -> list[Recorded]:
        """The facts past the sequence. Raises IndexError when they were dropped."""
        if sequence < self.first:
            raise IndexError(f"facts up to {self.first} were dropped, {sequence + 1} was asked for")
        return self.facts[sequence - self.first :]

    def forget(self, read_by_all: int) -> None:
        """Drops what every process has read, unless everything is kept."""
        if self._keep or read_by_all - self.first < 1_000:
            return
        del self.facts[: read_by_all - self.first]
        self.first = read_by_all

    def lines(self) -> Iterator[bytes]:
        """The log as bytes, a fact a line: what two runs of one seed have in common."""
        for one in self.facts:
            subject, _, body = encode(one.fact, Envelope(one.id, "", one.at))
            yield f"{one.sequence} {one.at.isoformat()} {one.order} {subject} ".encode() + body
