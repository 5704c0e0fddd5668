"""What one plan wants done, done together: fewer batches, the same limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparring.contracts.base import Fact
from sparring.contracts.node_agent import HaltNode, StopTask
from sparring.contracts.training_slots import SlotReleased
from sparring.decider import Append, Decider, Recorded, Send
from sparring.entity_store import Because, EntityStore
from sparring.log.memory import MemoryLog
from sparring.subjects import Ref
from sparring.testing import at
from sparring.together import joined, side_by_side


def _count(state: int, _: Recorded) -> int:
    return state + 1


POOL: Decider[int] = Decider("training-slots", "pool", 0, _count)
REF = POOL.ref("main")


def admission(limit: int, correlation: str = "", joins: str = "admission") -> Append:
    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        return [SlotReleased(lane="hex", token=1, held_s=states[REF])] if states[REF] < limit else []

    return Append([(POOL, "main")], decide, correlation=correlation, joins=joins)


async def test_joined_decisions_are_one_batch_and_each_is_taken_on_what_those_before_it_decided() -> None:
    (one,) = joined([admission(3) for _ in range(5)], at(0))
    assert isinstance(one, Append)
    log = MemoryLog()
    outcome = await EntityStore(log).execute(one.entities, one.decide, Because("test", at(0), "x"))
    assert [fact.fact.held_s for fact in outcome.facts] == [0, 1, 2], "a limit of 3 admits 3"  # type: ignore[attr-defined]


def test_decisions_of_other_iterations_and_of_no_group_stay_apart() -> None:
    actions = [admission(3, "a"), admission(3, "b"), admission(3, "a"), admission(3, joins=""), admission(3, joins="")]
    assert [one.correlation for one in joined(actions, at(0)) if isinstance(one, Append)] == ["a", "b", "", ""]


def test_a_batch_never_outgrows_what_the_server_takes() -> None:
    assert len(joined([admission(1_000) for _ in range(130)], at(0))) == 3


def test_orders_to_one_target_stay_in_their_order() -> None:
    stop = Send(StopTask(node="n1", task="t", attempt=1, reason=""), key="stop")
    halt, other = Send(HaltNode(node="n1", reason=""), key="halt"), Send(HaltNode(node="n2", reason=""), key="halt")
    assert side_by_side([stop, other, halt]) == [[stop, halt], [other]]
