"""Read an entity, decide, append what follows if nothing has changed since: the only way a fact comes to be."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakValueDictionary

from pydantic import TypeAdapter

from sparring.adapters import adapter_for
from sparring.contracts.base import Fact
from sparring.decider import Decider, Recorded
from sparring.envelope import MOST_BYTES, Envelope, derived_id, encode, foreign, recorded
from sparring.errors import LogUnavailable, LostRace, NotTheOwner, RepeatedBatch, TooLarge
from sparring.faults import fault
from sparring.log.interface import Expect, Log, Outgoing, Raw
from sparring.subjects import CARRIED, Ref, ref_of

CARRY_EVERY = 500
# an entity whose facts lie farther apart is carried forward, too: who loads it reads what lies between
CARRY_SPAN = 200_000
CACHED_STATES = 20_000
ATTEMPTS = 50
# an order that comes again is known for two weeks; of a busy entity (a pool whose slots are renewed every 30 s) the newest
ORDERS_KEPT = timedelta(days=14)
MOST_ORDERS = 20_000

# by id: the sequences of the first and the last fact of it, and when it was decided
Orders = dict[str, tuple[int, int, str]]
Decision = Callable[[Mapping[Ref, Any]], Sequence[Fact]]


@dataclass(frozen=True)
class Loaded:
    """An entity's state, the sequence it was read at, the orders that made it, and where loading it begins."""

    state: Any
    sequence: int = 0
    since_carried: int = 0
    orders: Orders = field(default_factory=dict)
    begin: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a decision led to; `repeated` says that the order had been obeyed before."""

    facts: tuple[Recorded, ...] = ()
    repeated: bool = False
    retries: int = 0


@dataclass(frozen=True)
class Because:
    """Who decides, when, and what for: becomes the headers of the facts."""

    source: str
    now: datetime
    id: str
    order: str = ""
    cause: str = ""
    correlation: str = ""
    traceparent: str = ""


def adapter_of(decider: Decider[Any]) -> TypeAdapter[Any]:
    """How the entity's state becomes JSON and comes back."""
    return adapter_for(decider.state_type or type(decider.initial))


class EntityStore:
    """Folds entities from the log, keeps their states, appends decisions with the sequence they were made on."""

    def __init__(self, log: Log, *, carry_every: int = CARRY_EVERY, carry_span: int = CARRY_SPAN) -> None:
        self._log, self._carry_every, self._carry_span = log, carry_every, carry_span
        self._newest = 0
        # entities whose state is too large for one message, and at how many facts it is tried again
        self._too_large: dict[Ref, int] = {}
        self._states: OrderedDict[Ref, Loaded] = OrderedDict()
        # a lock is there for as long as somebody holds it or waits for it
        self._locks: WeakValueDictionary[Ref, asyncio.Lock] = WeakValueDictionary()

    async def state(self, decider: Decider[Any], id: str) -> Loaded:
        """The entity as of its last message that a reader of this process can see."""
        return await self._load(decider, decider.ref(id))

    async def exists(self, decider: Decider[Any], id: str) -> bool:
        """Whether the entity has any fact; that it has none is asked of the leader."""
        loaded = await self.state(decider, id)
        return loaded.sequence > 0 or await self._log.last(decider.ref(id).pattern) > 0

    async def execute(
        self,
        entities: Sequence[tuple[Decider[Any], str]],
        decide: Decision,
        because: Because,
    ) -> Outcome:
        """Decides and appends, again after every lost race.

        A decision without facts counts only when the leader confirms that the entities have not moved: what this process
        remembers of an entity may be older than what another replica appended.
        Raises LostRace after 50 attempts, LogUnavailable when the log does not answer, NotTheOwner for foreign facts.
        """
        deciders = {decider.ref(id): decider for decider, id in entities}
        refs, held = sorted(deciders), list[asyncio.Lock]()
        try:
            for ref in refs:
                lock = self._locks.get(ref) or self._locks.setdefault(ref, asyncio.Lock())
                await lock.acquire()
                held.append(lock)
            return await self._execute(deciders, decide, because)
        finally:
            for lock in held:
                lock.release()

    async def _execute(self, deciders: Mapping[Ref, Decider[Any]], decide: Decision, because: Because) -> Outcome:
        lost: LostRace | RepeatedBatch | None = None
        for attempt in range(ATTEMPTS):
            loaded = {ref: await self._load(decider, ref, fresh=lost is not None) for ref, decider in deciders.items()}
            fault("loaded")
            earlier = self._earlier(loaded, because.order)
            if earlier is not None:
                return Outcome(await self._facts_between(deciders, earlier, because.order), repeated=True)
            facts = list(decide({ref: one.state for ref, one in loaded.items()}))
            fault("decided")
            if not facts:
                if await self._unmoved(loaded):
                    return Outcome(retries=attempt)
                lost = LostRace(next(iter(loaded)).pattern, 0)
                continue
            try:
                return Outcome(await self._append(deciders, loaded, facts, because, attempt), retries=attempt)
            except (LostRace, RepeatedBatch) as error:
                lost = error
                # somebody who wins every time would starve us: step back a little longer each time
                await asyncio.sleep(min(0.1, 0.001 * attempt))
            except LogUnavailable:
                self.forget(deciders)
                raise
        assert lost is not None
        raise lost

    def forget(self, refs: Mapping[Ref, Any] | Sequence[Ref]) -> None:
        for ref in refs:
            self._states.pop(ref, None)

    async def _unmoved(self, loaded: Mapping[Ref, Loaded]) -> bool:
        ends = await asyncio.gather(*(self._log.last(ref.pattern) for ref in loaded))
        return all(end == one.sequence for end, one in zip(ends, loaded.values(), strict=True))

    def _earlier(self, loaded: Mapping[Ref, Loaded], order: str) -> tuple[int, int] | None:
        if not order:
            return None
        for one in loaded.values():
            if order in one.orders:
                first, last, _ = one.orders[order]
                return first, last
        return None

    async def _facts_between(
        self, deciders: Mapping[Ref, Decider[Any]], span: tuple[int, int], order: str
    ) -> tuple[Recorded, ...]:
        found = []
        for ref in deciders:
            for raw in await self._log.load(ref.pattern, span[0] - 1):
                if raw.sequence <= span[1] and raw.headers.get("Sparring-Order") == order:
                    found.append(_recorded(raw))
        return tuple(sorted(found, key=lambda one: one.sequence))

    async def _append(
        self,
        deciders: Mapping[Ref, Decider[Any]],
        loaded: Mapping[Ref, Loaded],
        facts: Sequence[Fact],
        because: Because,
        attempt: int,
    ) -> tuple[Recorded, ...]:
        envelopes: list[Envelope] = []
        batch: list[Outgoing] = []
        first_seen: set[Ref] = set()
        carried: dict[int, Ref] = {}
        for number, fact in enumerate(facts):
            ref = ref_of(fact)
            if ref not in loaded:
                raise NotTheOwner(f"{type(fact).__name__} of {ref} was decided without reading that entity")
            expect = None
            if ref not in first_seen:
                first_seen.add(ref)
                expect = Expect(ref.pattern, loaded[ref].sequence)
                carry = self._carry_if_due(deciders[ref], ref, loaded[ref], because, expect)
                if carry is not None:
                    carried[len(batch)], expect = ref, None
                    batch.append(carry)
            # a lost race decides again, perhaps differently: ids of an attempt that was refused are free
            tried = "" if because.order else str(attempt)
            envelope = Envelope(
                derived_id(because.order or because.id, str(number), type(fact).__name__, tried),
                because.source, because.now, because.order, because.cause or because.order,
                because.correlation, because.traceparent,
            )  # fmt: skip
            envelopes.append(envelope)
            subject, headers, body = encode(fact, envelope)
            batch.append(Outgoing(subject, headers, body, expect))
        batch_id = derived_id(because.order or because.id, str(attempt)) if len(batch) > 1 else ""
        sequences = await self._log.append(batch, batch_id)
        fault("appended")
        self._newest = sequences[-1]
        own = [sequence for place, sequence in enumerate(sequences) if place not in carried]
        done = tuple(
            Recorded(sequence, because.now, fact, envelope.id, because.order, envelope.cause, because.correlation,
                     because.traceparent)
            for sequence, fact, envelope in zip(own, facts, envelopes, strict=True)
        )  # fmt: skip
        self._take_in(deciders, loaded, done, {carried[p]: sequences[p] for p in carried})
        return done

    def _take_in(
        self,
        deciders: Mapping[Ref, Decider[Any]],
        loaded: Mapping[Ref, Loaded],
        facts: Sequence[Recorded],
        carried: Mapping[Ref, int],
    ) -> None:
        states = {ref: replace(one, since_carried=0, begin=carried[ref], orders=_remembered(one.orders, facts[0].at))
                  if ref in carried else one for ref, one in loaded.items()}  # fmt: skip
        for one in facts:
            ref = ref_of(one.fact)
            states[ref] = _evolved(deciders[ref], states[ref], one)
        for ref, state in states.items():
            self._keep(deciders[ref], ref, state)

    def _carry_if_due(
        self, decider: Decider[Any], ref: Ref, one: Loaded, because: Because, expect: Expect
    ) -> Outgoing | None:
        """The entity's state, where it should go along with its next fact. One that no message can hold is left out, and
        whoever loads the entity reads more: nothing may keep a fact from being appended."""
        far = max(self._newest, one.sequence) - one.begin > self._carry_span
        due = one.since_carried >= self._carry_every or (one.since_carried > 0 and far)
        if not due or one.since_carried < self._too_large.get(ref, 0):
            return None
        message = self._carry(decider, ref, one, because, expect)
        if len(message.body) <= MOST_BYTES:
            self._too_large.pop(ref, None)
            return message
        self._too_large[ref] = one.since_carried + self._carry_every
        return None

    async def carry_forward(self, decider: Decider[Any], id: str, because: Because) -> Loaded:
        """Appends the entity's state as one message, from which loading starts.

        Raises LogUnavailable, LostRace, TooLarge when no message can hold it.
        """
        ref = decider.ref(id)
        for _ in range(ATTEMPTS):
            loaded = await self._load(decider, ref, fresh=True)
            try:
                message = self._carry(decider, ref, loaded, because, Expect(ref.pattern, loaded.sequence))
                if len(message.body) > MOST_BYTES:
                    raise TooLarge(
                        f"the state of {ref.pattern} has {len(message.body):,} bytes, a message may have {MOST_BYTES:,}"
                    )
                await self._log.append([message], derived_id(str(ref), CARRIED, str(loaded.sequence)))
                return loaded
            except (LostRace, RepeatedBatch):
                continue
        raise LostRace(ref.pattern, loaded.sequence)

    def _carry(self, decider: Decider[Any], ref: Ref, loaded: Loaded, because: Because, expect: Expect) -> Outgoing:
        body = {
            "state": adapter_of(decider).dump_python(loaded.state, mode="json"),
            "orders": _remembered(loaded.orders, because.now),
            "as_of": loaded.sequence,
        }
        id = derived_id(str(ref), CARRIED, str(loaded.sequence))
        headers = {"ce-id": id, "ce-type": CARRIED, "ce-source": because.source, "ce-time": because.now.isoformat()}
        return Outgoing(ref.subject(CARRIED), headers | {"Nats-Msg-Id": id}, json.dumps(body).encode(), expect)

    def _keep(self, decider: Decider[Any], ref: Ref, loaded: Loaded) -> None:
        """Those closed are not kept: most entities of a long run are, and hardly any of them is asked for again."""
        if decider.closed(loaded.state):
            self._states.pop(ref, None)
            return
        self._states[ref] = loaded
        self._states.move_to_end(ref)
        while len(self._states) > CACHED_STATES:
            self._states.popitem(last=False)

    async def _load(self, decider: Decider[Any], ref: Ref, *, fresh: bool = False) -> Loaded:
        known = self._states.get(ref)
        if known is not None and not fresh:
            return known
        # a replica may lag behind the leader that refused us
        wanted = await self._log.last(ref.pattern) if fresh else 0
        if fresh and not wanted:
            # what was closed for long is archived without a state to carry: the leader knows nothing of it any more
            known = None
        while True:
            loaded = await self._read(decider, ref, known)
            if loaded.sequence >= wanted:
                self._keep(decider, ref, loaded)
                return loaded
            known = loaded
            await asyncio.sleep(0.002)

    async def _read(self, decider: Decider[Any], ref: Ref, known: Loaded | None) -> Loaded:
        if known is not None:
            return _fold(decider, known, await self._log.load(ref.pattern, known.sequence))
        carried_at = await self._log.last(ref.subject(CARRIED))
        return _fold(decider, Loaded(decider.initial), await self._log.load(ref.pattern, max(0, carried_at - 1)))


def _remembered(orders: Orders, now: datetime) -> Orders:
    """Those of the last 14 days, of a busy entity the newest 20,000."""
    oldest = (now - ORDERS_KEPT).isoformat()
    kept = {id: one for id, one in orders.items() if one[2] >= oldest}
    return kept if len(kept) <= MOST_ORDERS else dict(sorted(kept.items(), key=lambda one: one[1][1])[-MOST_ORDERS:])


def _recorded(raw: Raw) -> Recorded:
    return recorded(raw.sequence, raw.subject, raw.headers, raw.body, raw.at)


def _fold(decider: Decider[Any], loaded: Loaded, tail: Sequence[Raw]) -> Loaded:
    for raw in tail:
        if foreign(raw.subject, raw.headers):
            # the next append expects what is last on the pattern, whatever it is
            loaded = replace(loaded, sequence=raw.sequence)
            continue
        if raw.subject.endswith("." + CARRIED):
            # taken whatever is known: it was appended on the state of just before it, and the facts that lead there may be purged
            body = json.loads(raw.body)
            state = adapter_of(decider).validate_json(json.dumps(body["state"]))
            orders = {id: (int(a), int(b), str(c)) for id, (a, b, c) in body["orders"].items()}
            loaded = Loaded(state, raw.sequence, 0, orders, raw.sequence)
            continue
        loaded = _evolved(decider, loaded, _recorded(raw))
    return loaded


def _evolved(decider: Decider[Any], loaded: Loaded, one: Recorded) -> Loaded:
    orders = loaded.orders
    if one.order:
        # grows in place: what is in the log stays true for every older view of the entity
        first = orders[one.order][0] if one.order in orders else one.sequence
        orders[one.order] = (first, one.sequence, one.at.isoformat())
    state, begin = decider.evolve(loaded.state, one), loaded.begin or one.sequence
    return Loaded(state, one.sequence, loaded.since_carried + 1, orders, begin)
