"""How decisions are written: an entity is a fold over its facts, a decision is a function of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from sparring.contracts.base import Fact, Order
from sparring.subjects import Ref

S = TypeVar("S")

if TYPE_CHECKING:
    # the same arguments, and checked as such
    from dataclasses import replace as replace
else:

    def replace(state, /, **fields):
        """`dataclasses.replace` for states, which have no slots and nothing to initialise: a copy, six times as fast.

        Raises TypeError for a field that the state does not have.
        """
        known = state.__dict__
        if not fields.keys() <= known.keys():
            raise TypeError(f"{type(state).__name__} has no field {', '.join(sorted(fields.keys() - known.keys()))}")
        made = object.__new__(type(state))
        made.__dict__.update(known, **fields)
        return made


@dataclass(frozen=True, slots=True)
class Recorded:
    """A fact with its place in the log. `at` is the moment its decision was taken."""

    sequence: int
    at: datetime
    fact: Fact
    id: str = ""
    order: str = ""
    cause: str = ""
    correlation: str = ""
    traceparent: str = ""


def never(_: Any) -> bool:
    return False


@dataclass(frozen=True)
class Decider(Generic[S]):
    """One kind of entity: who owns it, what it starts as, how a fact changes it.

    `evolve` must be pure and must accept every fact of the entity; the state is a frozen dataclass, so that
    it can be carried forward as JSON. `state_type` is needed where the state is a union. `closed` says of a state that
    nothing will be decided on it any more: such an entity leaves the stream with its facts, once no redelivery of its
    orders is possible.
    """

    owner: str
    entity: str
    initial: S
    evolve: Callable[[S, Recorded], S]
    state_type: Any = None
    closed: Callable[[S], bool] = never

    def ref(self, id: str) -> Ref:
        return Ref(self.owner, self.entity, id)


@dataclass(frozen=True)
class Reading:
    """The last reading on a subject, and how old it is on this process's own clock."""

    data: Any
    age_s: float


@dataclass(frozen=True)
class Watch:
    """What this process itself could hear: without it, silence of others proves nothing."""

    connected_s: float = 0.0
    started_s: float = 0.0


@dataclass(frozen=True)
class Context:
    """Everything a decision may look at besides its entity: never a clock, never a client."""

    now: datetime
    settings: Any = None
    settings_hash: str = ""
    picture: Any = None
    read_to: int = 0
    id: str = ""
    readings: Mapping[str, Reading] = field(default_factory=dict)
    watch: Watch = Watch()
    gathered: Any = None


@dataclass(frozen=True)
class Send:
    """An order to an owner.

    `key` names the cause: the order's id derives from key, type and target, so that sending again changes nothing.
    The shell sends a key at once and repeats it only after `again_s`; plan may therefore return it at every call.
    `correlation` is the lane iteration it belongs to.
    """

    order: Order
    key: str
    correlation: str = ""
    traceparent: str = ""
    expires_s: float | None = None
    again_s: float = 10.0


@dataclass(frozen=True)
class Append:
    """A decision over several entities at once: one atomic batch, or nothing.

    `decide` gets the state of each entity named in `entities`, by `Ref`, read at the moment of appending; it must check
    again what it relies on (the states may be newer than the picture) and may return no facts.

    Decisions of one plan that name the same `joins` become one batch: each is taken on what those before it decided.
    """

    entities: Sequence[tuple[Decider[Any], str]]
    decide: Callable[[Mapping[Ref, Any]], Sequence[Fact]]
    correlation: str = ""
    traceparent: str = ""
    joins: str = ""


Action = Send | Append


class Picture(Protocol):
    """A planner's read model: a fold over many entities' facts, kept in memory, rebuilt from the log."""

    def apply(self, recorded: Recorded) -> None:
        """Takes in one fact. Must be deterministic and must tolerate facts it does not care for."""

    def dump(self) -> Any:
        """Everything as JSON, so that a start need not read the whole log."""

    def text(self) -> str:
        """What `dump` answers, as text. The process stands still meanwhile: at once, a large picture takes a quarter of the
        time."""

    def load(self, data: Any) -> None: ...


Decide = Callable[[Any, Any, Context], Sequence[Fact]]
React = Callable[[Recorded, Context], Sequence[Action]]
Plan = Callable[[Context], Sequence[Action]]


@dataclass(frozen=True)
class Command:
    """An order that the service obeys, and the pure function that decides on it.

    `mints` says that the order may create an entity: it names the id of something that did not exist.
    `also` names further entities that the decision needs: then `decide` gets a mapping from `Ref` to state.
    `gather` does the I/O that the decision's evidence needs, before it: `await gather(order, shell)` arrives as
    `context.gathered`.
    """

    order: type[Order]
    decider: Decider[Any]
    decide: Decide
    mints: bool = False
    also: Callable[[Any], Sequence[tuple[Decider[Any], str]]] | None = None
    gather: Callable[[Any, Any], Awaitable[Any]] | None = None


@dataclass(frozen=True)
class Reaction:
    """What the service does when it hears a fact; runs once its picture has reached it."""

    fact: type[Fact]
    react: React
