"""The entity store under races, repeats and lost acknowledgements, on one server and on three."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from nats.aio.client import Client

from sparring import entity_store
from sparring.contracts.base import Fact
from sparring.contracts.training_slots import SlotClaimed, SlotExpired, SlotReleased
from sparring.decider import Decider, Recorded
from sparring.entity_store import Because, EntityStore
from sparring.envelope import MOST_BYTES
from sparring.errors import NotTheOwner, TooLarge
from sparring.log import JetStreamLog, Log, MemoryLog, Outgoing
from sparring.subjects import CARRIED, Ref
from sparring.testing import at


@dataclass(frozen=True)
class Held:
    holders: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()


def evolve(state: Held, one: Recorded) -> Held:
    match one.fact:
        case SlotClaimed(holder=holder):
            return Held((*state.holders, holder), (*state.tokens, one.sequence))
        case SlotReleased(token=token):
            keep = [(h, t) for h, t in zip(state.holders, state.tokens, strict=True) if t != token]
            return Held(tuple(h for h, _ in keep), tuple(t for _, t in keep))
    return state


POOL = Decider("training-slots", "pool", Held(), evolve)
MAIN = POOL.ref("main")


def because(id: str, order: str = "") -> Because:
    return Because(source="test", now=at(0), id=id, order=order)


def claim(holder: str, limit: int = 1_000_000):  # type: ignore[no-untyped-def]
    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        held = states[MAIN].holders
        if len(held) >= limit:
            return []
        return [SlotClaimed(lane="hex", holder=holder, until=at(90), waited_s=0, held=len(held) + 1, limit=limit)]

    return decide


def claimed(pool: str, number: int) -> SlotClaimed:
    return SlotClaimed(
        pool=pool, lane="hex", holder=f"{pool}{number}", until=at(90), waited_s=0, held=1, limit=1_000_000
    )


async def race(logs: Sequence[Log], writers: int, each: int, limit: int) -> list[EntityStore]:
    stores = [EntityStore(log) for log in logs]

    async def write(number: int) -> None:
        for turn in range(each):
            name = f"{number}-{turn}"
            await stores[number % len(stores)].execute([(POOL, "main")], claim(name, limit), because(name))

    await asyncio.gather(*(write(number) for number in range(writers)))
    return stores


async def test_four_stores_never_pass_a_limit_of_32(nc: Client) -> None:
    await race([JetStreamLog(nc) for _ in range(4)], writers=8, each=10, limit=32)
    final = (await EntityStore(JetStreamLog(nc)).state(POOL, "main")).state
    assert len(final.holders) == 32
    assert list(final.tokens) == sorted(set(final.tokens))


async def test_fifty_writers_on_one_entity_lose_no_update(nc: Client) -> None:
    await race([JetStreamLog(nc) for _ in range(5)], writers=50, each=2, limit=1_000)
    final = (await EntityStore(JetStreamLog(nc)).state(POOL, "main")).state
    assert len(final.holders) == 100 == len(set(final.holders))


async def test_races_are_decided_on_three_replicas_too(cluster_nc: Client) -> None:
    await race([JetStreamLog(cluster_nc) for _ in range(4)], writers=8, each=6, limit=32)
    final = (await EntityStore(JetStreamLog(cluster_nc)).state(POOL, "main")).state
    assert len(final.holders) == 32


async def test_an_order_asked_twice_is_done_once(nc: Client) -> None:
    first, second = EntityStore(JetStreamLog(nc)), EntityStore(JetStreamLog(nc))
    one = await first.execute([(POOL, "main")], claim("a"), because("order-1", "order-1"))
    again = await first.execute([(POOL, "main")], claim("a"), because("order-1", "order-1"))
    elsewhere = await second.execute([(POOL, "main")], claim("a"), because("order-1", "order-1"))
    assert again.repeated
    assert elsewhere.repeated
    assert [f.sequence for f in again.facts] == [f.sequence for f in elsewhere.facts] == [f.sequence for f in one.facts]
    assert await JetStreamLog(nc).end() == 1


async def test_an_order_is_remembered_past_the_window_of_the_servers_deduplication() -> None:
    log = MemoryLog()
    await EntityStore(log).execute([(POOL, "main")], claim("a"), because("order-1", "order-1"))
    log._ids.clear()
    again = await EntityStore(log).execute([(POOL, "main")], claim("a"), because("order-1", "order-1"))
    assert again.repeated
    assert await log.end() == 1


class AnswersGetLost(MemoryLog):
    """Appends, and then says that it could not."""

    async def append(self, batch: Sequence[Outgoing], batch_id: str) -> list[int]:
        from sparring.errors import LogUnavailable

        await super().append(batch, batch_id)
        raise LogUnavailable("the acknowledgement was lost")


async def test_a_lost_acknowledgement_doubles_nothing() -> None:
    from sparring.errors import LogUnavailable

    log = AnswersGetLost()
    store = EntityStore(log)
    with pytest.raises(LogUnavailable):
        await store.execute([(POOL, "main")], claim("a"), because("order-1", "order-1"))
    again = await store.execute([(POOL, "main")], claim("a"), because("order-1", "order-1"))
    assert again.repeated
    assert await log.end() == 1


async def test_a_decision_without_facts_counts_only_on_the_newest_state(nc: Client) -> None:
    stale, other = EntityStore(JetStreamLog(nc)), EntityStore(JetStreamLog(nc))
    await stale.execute([(POOL, "main")], claim("a", limit=1), because("1", "1"))
    token = (await other.state(POOL, "main")).state.tokens[0]

    def release(_: Mapping[Ref, Any]) -> Sequence[Fact]:
        return [SlotReleased(lane="hex", token=token, held_s=1)]

    await other.execute([(POOL, "main")], release, because("2", "2"))
    taken = await stale.execute([(POOL, "main")], claim("b", limit=1), because("3", "3"))
    assert [f.fact.holder for f in taken.facts if isinstance(f.fact, SlotClaimed)] == ["b"]


async def test_facts_of_an_entity_that_was_not_read_are_refused() -> None:
    other = Decider("training-slots", "pool", Held(), evolve)
    with pytest.raises(NotTheOwner):
        await EntityStore(MemoryLog()).execute([(other, "second")], claim_main, because("1"))


def claim_main(_: Mapping[Ref, Any]) -> Sequence[Fact]:
    return [SlotClaimed(lane="hex", holder="a", until=at(90), waited_s=0, held=1, limit=1)]


async def test_a_fact_too_large_for_the_server_is_refused_whole_and_the_largest_passes(nc: Client) -> None:
    store = EntityStore(JetStreamLog(nc, timeout_s=30))
    empty = len(SlotExpired(lane="hex", holder="a", token=1, reason="").model_dump_json())

    def said(length: int) -> Sequence[Fact]:
        small = SlotClaimed(lane="hex", holder="a", until=at(90), waited_s=0, held=1, limit=1)
        return [small, SlotExpired(lane="hex", holder="a", token=1, reason="x" * (length - empty))]

    with pytest.raises(TooLarge, match="8,323,073 bytes, a message may have 8,323,072"):
        await store.execute([(POOL, "main")], lambda _: said(MOST_BYTES + 1), because("a"))
    assert await JetStreamLog(nc).load(MAIN.pattern) == []
    done = await store.execute([(POOL, "main")], lambda _: said(MOST_BYTES), because("b"))
    assert len(done.facts) == 2


async def test_states_are_carried_so_that_loading_is_short_and_equal(nc: Client) -> None:
    log = JetStreamLog(nc)
    store = EntityStore(log, carry_every=10)
    for number in range(35):
        await store.execute([(POOL, "main")], claim(str(number)), because(f"id-{number}", f"order-{number}"))
    carried = [raw for raw in await log.load(MAIN.pattern) if raw.subject.endswith("StateCarried")]
    assert len(carried) == 3
    fresh = EntityStore(log, carry_every=10)
    assert (await fresh.state(POOL, "main")).state == (await store.state(POOL, "main")).state
    repeated = await fresh.execute([(POOL, "main")], claim("again"), because("id-3", "order-3"))
    assert repeated.repeated


async def test_a_state_that_no_message_can_hold_keeps_no_fact_from_being_appended(
    nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is left out, tried again after as many facts, and carried once it has become smaller."""
    monkeypatch.setattr(entity_store, "MOST_BYTES", 1_500)
    log = JetStreamLog(nc)
    store, carried = EntityStore(log, carry_every=10), []
    monkeypatch.setattr(store, "_carry", lambda *told: carried.append(told[2].sequence) or carry(*told))
    carry = EntityStore(log)._carry
    for number in range(60):
        await store.execute([(POOL, "main")], claim(f"holder-{number:020}"), because(f"c{number}"))
    assert 3 <= len(carried) <= 6, "a state that is too large is not made anew for each fact"
    sizes = [len(raw.body) for raw in await log.load(MAIN.subject(CARRIED))]
    assert sizes and max(sizes) <= 1_500, "what fits is carried, and nothing else"
    assert len((await EntityStore(log).state(POOL, "main")).state.holders) == 60
    with pytest.raises(TooLarge, match=r"pool\.main\.> has"):
        await store.carry_forward(POOL, "main", because("carried"))
    for token in (await store.state(POOL, "main")).state.tokens[5:]:
        released = SlotReleased(lane="hex", token=token, held_s=1)
        await store.execute([(POOL, "main")], lambda _, one=released: [one], because(f"r{token}"))  # type: ignore[misc]
    before = await log.last(MAIN.subject(CARRIED))
    assert before > 60, "small again, it is carried again"
    assert (await EntityStore(log).state(POOL, "main")).state == (await store.state(POOL, "main")).state


async def test_an_entity_that_was_archived_for_good_begins_anew_also_where_it_is_remembered(nc: Client) -> None:
    """The leader expects nothing before its next fact: a replica that expected the old ones lost every race."""
    store = EntityStore(JetStreamLog(nc))
    await store.execute([(POOL, "main")], claim("before"), because("c1"))
    await nc.jetstream().purge_stream("EVENTS", subject=MAIN.pattern)
    outcome = await store.execute([(POOL, "main")], claim("after"), because("c2"))
    assert outcome.facts and (await store.state(POOL, "main")).state.holders == ("after",)


async def test_a_closed_entity_takes_no_memory_and_its_orders_are_known_from_the_log(nc: Client) -> None:
    """Of a hundred thousand tasks a few hundred are open; the others stay in the log alone."""
    full = replace(POOL, closed=lambda state: len(state.holders) == 2)
    store = EntityStore(JetStreamLog(nc))
    await store.execute([(full, "main")], claim("a"), because("order-1", "order-1"))
    await store.execute([(full, "main")], claim("b"), because("order-2", "order-2"))
    again = await store.execute([(full, "main")], claim("a"), because("order-1", "order-1"))
    assert again.repeated and await JetStreamLog(nc).end() == 2
    await nc.jetstream().purge_stream("EVENTS", subject=MAIN.pattern)
    assert (await store.state(full, "main")).state == Held()


async def test_of_a_busy_entity_the_newest_orders_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool whose slots are renewed every 30 s hears thousands of orders a day: their list may not outgrow a message."""
    monkeypatch.setattr(entity_store, "MOST_ORDERS", 20)
    log = MemoryLog()
    store = EntityStore(log, carry_every=10)
    for number in range(50):
        await store.execute([(POOL, "main")], claim(f"h{number}"), because(f"c{number}", f"order-{number}"))
    body = json.loads((await log.load(MAIN.subject(CARRIED)))[-1].body)
    assert len(body["orders"]) == 20
    assert len((await store.state(POOL, "main")).orders) == 30
    again = await EntityStore(log).execute([(POOL, "main")], claim("again"), because("c49", "order-49"))
    assert again.repeated and len((await EntityStore(log).state(POOL, "main")).state.holders) == 50


async def test_an_entity_whose_facts_lie_far_apart_is_carried_forward_with_its_next_one(nc: Client) -> None:
    store, other = EntityStore(JetStreamLog(nc), carry_span=20), EntityStore(JetStreamLog(nc))
    for number in range(3):
        await store.execute([(POOL, "main")], claim(f"a{number}"), because(f"a{number}"))
    for number in range(30):
        await other.execute([(POOL, "b")], lambda _: [claimed("b", number)], because(f"b{number}"))
    await store.execute([(POOL, "b2")], lambda _: [claimed("b2", 0)], because("b2"))
    await store.execute([(POOL, "main")], claim("late"), because("late"))
    await store.execute([(POOL, "main")], claim("later"), because("later"))
    raws = await JetStreamLog(nc).load(MAIN.pattern)
    assert [raw.subject.rpartition(".")[2] for raw in raws] == ["SlotClaimed"] * 3 + ["StateCarried"] + [
        "SlotClaimed"
    ] * 2
    fresh = await EntityStore(JetStreamLog(nc)).state(POOL, "main")
    assert fresh.state == (await store.state(POOL, "main")).state
    assert fresh.begin == raws[3].sequence


async def test_batches_over_two_entities_are_appended_together(nc: Client) -> None:
    log = JetStreamLog(nc)
    store = EntityStore(log)

    def both(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        assert len(states) == 2
        return [
            SlotClaimed(pool=pool, lane="hex", holder="a", until=at(90), waited_s=0, held=1, limit=1)
            for pool in ("main", "second")
        ]

    outcome = await store.execute([(POOL, "main"), (POOL, "second")], both, because("1"))
    assert [fact.sequence for fact in outcome.facts] == [1, 2]
