"""Whose turn it is, who gives way, who is held back: the pool over long stories."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given as any_given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sparring.contracts.base import Fact
from sparring.contracts.health import NodeJoined, NodeLost
from sparring.contracts.parts import TaskSpec
from sparring.contracts.selfplay_orch import TaskAssigned, TaskRequested
from sparring.contracts.training_slots import (
    ClaimQueued,
    ClaimSlot,
    HoldBackLifted,
    HoldBackRefused,
    HoldLaneBack,
    LaneHeldBack,
    LiftHoldBack,
    PreemptionAsked,
    PreemptionRefused,
    PreemptSlot,
    ReleaseSlot,
    RenewSlot,
    SlotClaimed,
    SlotExpired,
    SlotPreempted,
    SlotReleased,
    SlotRenewed,
)
from sparring.decider import Context, Recorded
from sparring.testing import at
from sparring.testing.world import World
from training_slots.core.decide import claim, expire, preempt, release, renew
from training_slots.core.evolve import POOL
from training_slots.core.holds import hold_back, lift
from training_slots.core.plan import PoolPicture, plan
from training_slots.core.state import Pool
from training_slots.settings import Settings

ONE = Settings(slots=1)
HEX = "hex"


@dataclass
class Story:
    """A pool that lives through orders on a virtual clock; every fact is kept with its sequence."""

    settings: Settings = ONE
    pool: Pool = field(default_factory=Pool)
    now: float = 0.0
    log: list[Recorded] = field(default_factory=list)

    def do(self, decide: Any, order: Any) -> list[Fact]:
        return self.tell(decide(order, self.pool, Context(now=at(self.now), settings=self.settings)))

    def tick(self, seconds: float = 0.0, lost: dict[int, str] | None = None) -> list[Fact]:
        self.now += seconds
        return self.tell(expire(self.pool, at(self.now), self.settings.slots, lost))

    def tell(self, facts: list[Fact]) -> list[Fact]:
        for fact in facts:
            one = Recorded(len(self.log) + 1, at(self.now), fact)
            self.log.append(one)
            self.pool = POOL.evolve(self.pool, one)
        return facts

    def claim(self, lane: str, holder: str = "", priority: int = 0, lease_s: float = 90) -> list[Fact]:
        order = ClaimSlot(lane=lane, holder=holder or f"{lane}-{len(self.log)}", priority=priority, lease_s=lease_s)
        return self.do(claim, order)

    def release(self, lane: str) -> list[Fact]:
        held = self.pool.held[lane]
        return self.do(release, ReleaseSlot(lane=lane, holder=held.holder, token=held.token))

    def renew(self, lane: str) -> list[Fact]:
        return self.do(renew, RenewSlot(lane=lane, token=self.pool.held[lane].token))

    @property
    def holders(self) -> set[str]:
        return set(self.pool.held)


# ---- turns


def test_priority_goes_first_then_age() -> None:
    story = Story()
    story.claim("a")
    for lane, priority in (("old", 0), ("young", 0), ("urgent", 5)):
        story.now += 1
        story.claim(lane, priority=priority)
    order = []
    for _ in range(4):
        order += story.holders
        story.release(order[-1])
    assert order == ["a", "urgent", "old", "young"]


def test_a_high_priority_does_not_let_a_lane_train_twice_before_a_waiting_one_once() -> None:
    story = Story()
    story.claim("rich", priority=9)
    story.claim("poor", priority=0)
    story.claim("rich", "again", priority=9)
    story.release("rich")
    assert story.holders == {"poor"}
    story.release("poor")
    assert story.holders == {"rich"}


LANES = ("a", "b", "c")
WHAT = ("claim", "claim", "claim", "release", "release", "release", "hold", "preempt", "wait")
TURNS = st.lists(st.tuples(st.sampled_from(WHAT), st.sampled_from(LANES), st.integers(0, 9)), min_size=40, max_size=60)


@hypothesis_settings(max_examples=150, deadline=None)
@any_given(TURNS, st.integers(1, 3))
def test_no_lane_trains_twice_while_another_waited_all_that_time(steps: list[tuple[str, str, int]], slots: int) -> None:
    """Whatever is claimed with whatever priority, released, preempted, held back."""
    story = Story(Settings(slots=slots))
    served_while_waiting: dict[tuple[str, str], int] = {}

    def note(facts: list[Fact], waiting_before: dict[str, int]) -> None:
        for fact in facts:
            if not isinstance(fact, SlotClaimed):
                continue
            for lane in waiting_before:
                if lane != fact.lane:
                    served_while_waiting[fact.lane, lane] = served_while_waiting.get((fact.lane, lane), 0) + 1
            for key in [key for key in served_while_waiting if key[1] == fact.lane]:
                del served_while_waiting[key]

    for what, lane, number in steps:
        ready = {
            one.lane: one.sequence
            for one in story.pool.queue
            if one.lane not in story.pool.held and story.pool.rests_until(one.lane, at(story.now)) is None
        }
        for key in [key for key in served_while_waiting if key[1] not in ready]:
            # it may not train now: whoever overtakes it takes nothing from it
            del served_while_waiting[key]
        facts: list[Fact] = []
        if what == "claim":
            facts = story.claim(lane, priority=number)
        elif what == "release":
            facts = story.release(min(story.pool.held)) if story.pool.held else []
        elif what == "hold":
            severity = ("minor", "moderate", "low_quality", "severe")[number % 4]
            order = HoldLaneBack(lane=lane, reason="r", for_s=number, severity=severity, revision=len(story.log))  # type: ignore[arg-type]
            facts = story.do(hold_back, order)
        elif what == "preempt":
            facts = story.do(preempt, PreemptSlot(lane=lane, by="x", reason="r", grace_s=number))
        else:
            facts = story.tick(number * 5)
        note(facts, ready)
        assert max(served_while_waiting.values(), default=0) <= 1
        assert len(story.pool.held) <= slots


# ---- giving way


def preempted(story: Story, lane: str = HEX, grace_s: float | None = None) -> list[Fact]:
    return story.do(preempt, PreemptSlot(lane=lane, by="someone", reason="a demo", grace_s=grace_s))


def test_a_preempted_holder_is_asked_once_and_gets_sixty_seconds() -> None:
    story = Story()
    story.claim(HEX)
    (asked,) = preempted(story)
    assert isinstance(asked, PreemptionAsked)
    assert (asked.token, asked.grace_s, asked.until) == (1, 60.0, at(60))
    assert preempted(story) == []


def test_a_preempted_lease_is_renewed_no_further_than_the_grace_time_and_never_shortened() -> None:
    story = Story()
    story.claim(HEX)
    story.now = 60
    assert story.renew(HEX) == [SlotRenewed(lane=HEX, token=1, until=at(150))]
    story.now = 100
    preempted(story)
    assert story.renew(HEX) == [SlotRenewed(lane=HEX, token=1, until=at(160))]
    story.now = 110
    assert story.renew(HEX) == []
    assert story.pool.held[HEX].until == at(160)


def test_giving_way_serves_who_waits_in_the_same_decision_and_counts_as_preempted() -> None:
    story = Story()
    story.claim(HEX)
    story.claim("ttt")
    preempted(story)
    story.now = 20
    facts = story.release(HEX)
    assert [type(fact) for fact in facts] == [SlotPreempted, SlotClaimed]
    assert isinstance(facts[0], SlotPreempted) and facts[0].gave_way and facts[0].held_s == 20
    assert story.holders == {"ttt"}


def test_a_holder_that_does_not_give_way_loses_the_slot_when_lease_and_grace_are_over() -> None:
    story = Story()
    story.claim(HEX, lease_s=90)
    story.claim("ttt")
    story.now = 10
    preempted(story)
    assert story.tick(79) == [], "the lease that the holder was promised still runs"
    facts = story.tick(1)
    assert [type(fact) for fact in facts] == [SlotPreempted, SlotClaimed]
    assert isinstance(facts[0], SlotPreempted) and not facts[0].gave_way


def test_who_does_not_hold_is_not_preempted() -> None:
    story = Story()
    assert isinstance(preempted(story)[0], PreemptionRefused)
    story.claim(HEX)
    stale = PreemptSlot(lane=HEX, by="x", reason="r", token=7)
    assert isinstance(story.do(preempt, stale)[0], PreemptionRefused)


# ---- holding back


def held_back(
    story: Story, severity: Any, for_s: float = 1000, cause: str = "regression", revision: int = 0
) -> list[Fact]:
    order = HoldLaneBack(lane=HEX, reason="worse", for_s=for_s, cause=cause, severity=severity, revision=revision)
    return story.do(hold_back, order)


@pytest.mark.parametrize(
    ("severities", "rest_s"),
    [(["minor"], 0), (["moderate"], 25), (["low_quality"], 42.857143), (["moderate", "low_quality"], 78.571429)],
)
def test_a_lane_held_back_keeps_its_share_of_its_turns(severities: list[str], rest_s: float) -> None:
    """Minor is a note, moderate keeps 0.8, low data quality 0.7, together they multiply: it rests h(1/f - 1) after h."""
    story = Story()
    story.claim(HEX, lease_s=500)
    for severity in severities:
        held_back(story, severity, cause=severity)
    story.now = 100
    story.claim(HEX, "again")
    story.release(HEX)
    story.tick(max(0, rest_s - 0.1))
    assert story.holders == (set() if rest_s else {HEX})
    story.tick(0.2)
    assert story.holders == {HEX}


def test_a_severe_hold_is_a_pause_that_ends_by_itself() -> None:
    story = Story()
    (held,) = held_back(story, "severe", for_s=50)
    assert isinstance(held, LaneHeldBack) and held.factor == 0 and held.until == at(50)
    assert [type(fact) for fact in story.claim(HEX)] == [ClaimQueued]
    assert story.tick(49) == []
    assert [type(fact) for fact in story.tick(1)] == [SlotClaimed]


def test_a_hold_that_is_lifted_serves_the_lane_at_once() -> None:
    story = Story()
    held_back(story, "severe", revision=1)
    story.claim(HEX)
    facts = story.do(lift, LiftHoldBack(lane=HEX, cause="regression", by="me", revision=2))
    assert [type(fact) for fact in facts] == [HoldBackLifted, SlotClaimed]


def test_an_order_about_a_hold_that_is_older_than_the_newest_is_refused() -> None:
    story = Story()
    held_back(story, "severe", revision=5)
    assert isinstance(held_back(story, "minor", revision=4)[0], HoldBackRefused)
    older = LiftHoldBack(lane=HEX, cause="regression", by="me", revision=4)
    assert isinstance(story.do(lift, older)[0], HoldBackRefused)
    assert story.pool.capacity(HEX, at(0)) == 0


def test_the_same_hold_again_changes_nothing() -> None:
    story = Story()
    held_back(story, "moderate")
    assert held_back(story, "moderate") == []


# ---- a node is lost


def training(node: str = "n1") -> list[Fact]:
    spec = TaskSpec(kind="train", lane=HEX, seed=1, argv=("x",), timeout_s=600, slot_token=1, exclusive=True)
    return [
        SlotClaimed(lane=HEX, holder="a", until=at(90), waited_s=0, held=1, limit=1),
        ClaimQueued(lane="ttt", holder="b", priority=0, lease_s=90, held_by=("a",), limit=1, expires_at=at(9000)),
        TaskRequested(task="t", spec=spec, by="pipeline"),
        TaskAssigned(task="t", attempt=1, node=node, boot="b1", seat_limit=1),
    ]


def lost(node: str) -> NodeLost:
    return NodeLost(node=node, boot="b1", silent_s=20, limit_s=20, reason="silent")


def joined(node: str, boot: str) -> NodeJoined:
    return NodeJoined(node=node, boot=boot, build="1", compatible=True, ephemeral=False, tags=(), kinds=(), machine=node,
                      cores=4, memory_bytes=1, gpus=(), seats=1)  # fmt: skip


@pytest.mark.parametrize("gone", [lost("n1"), joined("n1", "b2")])
def test_a_holders_slot_is_free_with_its_nodes_loss(gone: Fact) -> None:
    world = World(PoolPicture, plan, ONE, *training(), gone)
    world.tick(1)
    (expired,) = world.of(SlotExpired)
    assert expired.token == 1 and "n1" in expired.reason
    assert [one.lane for one in world.of(SlotClaimed)] == [HEX, "ttt"]


@pytest.mark.parametrize("other", [lost("n2"), joined("n1", "b1")])
def test_another_nodes_loss_and_another_beat_of_the_same_life_take_no_slot(other: Fact) -> None:
    world = World(PoolPicture, plan, ONE, *training(), other)
    world.tick(1)
    assert world.of(SlotExpired) == [] and world.of(SlotReleased) == []


def test_the_picture_survives_a_restart() -> None:
    world = World(PoolPicture, plan, ONE, *training())
    picture, again = world.context().picture, PoolPicture()
    again.load(picture.dump())
    assert again.all == picture.all


def test_a_state_that_was_carried_before_there_were_holds_is_still_read() -> None:
    from sparring.entity_store import adapter_of

    old = '{"held": {}, "queue": [], "served": {"hex": 3}, "held_back": {"hex": "2030-01-01T00:00:00Z"}}'
    assert adapter_of(POOL).validate_json(old) == Pool(served={"hex": 3})
