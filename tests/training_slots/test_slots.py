"""The right to train: exclusive, fenced, expiring, and handed over at once."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given as any_given
from hypothesis import strategies as st

from sparring.contracts.base import Fact
from sparring.contracts.training_slots import (
    ClaimQueued,
    ClaimSlot,
    ReleaseSlot,
    RenewalRefused,
    RenewSlot,
    SlotClaimed,
    SlotExpired,
    SlotReleased,
    SlotRenewed,
)
from sparring.decider import Context, Recorded
from sparring.testing import at, given
from training_slots.core.decide import claim, expire, release, renew
from training_slots.core.evolve import POOL
from training_slots.settings import Settings

HEX, TTT = "hex5_2p", "ttt_2p"
ONE = Settings(slots=1)


def claimed(
    lane: str = HEX, holder: str = "a", until: datetime | None = None, held: int = 1, limit: int = 1
) -> SlotClaimed:
    return SlotClaimed(lane=lane, holder=holder, until=until or at(90), waited_s=0, held=held, limit=limit)


def test_a_free_slot_is_claimed_for_the_lease() -> None:
    given(POOL).when(claim, ClaimSlot(lane=HEX, holder="a"), at(0), settings=ONE).then(claimed())


def test_a_held_slot_makes_another_claim_wait_once() -> None:
    order = ClaimSlot(lane=TTT, holder="b")
    given(POOL, claimed()).when(claim, order, at(30), settings=ONE).then_types(ClaimQueued).asked_again_changes_nothing(
        claim, order, at(31), settings=ONE
    )


def test_claiming_again_while_holding_changes_nothing() -> None:
    given(POOL, claimed()).when(claim, ClaimSlot(lane=HEX, holder="a"), at(10), settings=ONE).then_nothing()


def test_a_release_serves_the_waiting_lane_in_the_same_decision() -> None:
    (
        given(POOL, claimed())
        .when(claim, ClaimSlot(lane=TTT, holder="b"), at(30), settings=ONE)
        .then_types(ClaimQueued)
        .when(release, ReleaseSlot(lane=HEX, holder="a", token=1), at(40), settings=ONE)
        .then_types(SlotReleased, SlotClaimed)
    )


def test_a_stale_token_releases_nothing_and_renews_nothing() -> None:
    story = given(POOL, claimed())
    story.when(release, ReleaseSlot(lane=HEX, holder="a", token=7), at(40), settings=ONE).then_nothing()
    story.when(renew, RenewSlot(lane=HEX, token=7), at(40), settings=ONE).then_types(RenewalRefused)


def test_a_lease_never_gets_shorter() -> None:
    story = given(POOL, claimed(until=at(500)))
    story.when(renew, RenewSlot(lane=HEX, token=1), at(-1), settings=ONE).then_nothing()


def test_a_renewal_extends_by_the_lease() -> None:
    given(POOL, claimed()).when(renew, RenewSlot(lane=HEX, token=1), at(30), settings=ONE).then(
        SlotRenewed(lane=HEX, token=1, until=at(120))
    )


def test_a_dead_holders_slot_is_free_at_the_lease_end_and_handed_over() -> None:
    def time_passes(_: None, pool: Any, ctx: Context) -> list[Fact]:
        return expire(pool, ctx.now, 1)

    (
        given(POOL, claimed())
        .when(claim, ClaimSlot(lane=TTT, holder="b"), at(30), settings=ONE)
        .then_types(ClaimQueued)
        .when(time_passes, None, at(89))
        .then_nothing()
        .when(time_passes, None, at(90))
        .then_types(SlotExpired, SlotClaimed)
    )


def test_no_lane_is_served_twice_before_a_waiting_one_once() -> None:
    (
        given(POOL, claimed())
        .when(claim, ClaimSlot(lane=HEX, holder="a2"), at(1), settings=ONE)
        .then_types(ClaimQueued)
        .when(claim, ClaimSlot(lane=TTT, holder="b"), at(2), settings=ONE)
        .then_types(ClaimQueued)
        .when(release, ReleaseSlot(lane=HEX, holder="a", token=1), at(3), settings=ONE)
        .then(
            SlotReleased(lane=HEX, token=1, held_s=3),
            SlotClaimed(lane=TTT, holder="b", until=at(93), waited_s=1.0, held=1, limit=1),
        )
    )


def test_a_lease_must_outlast_two_renewals_when_settings_load() -> None:
    with pytest.raises(ValueError, match="lease_s"):
        Settings(lease_s=50, renew_s=30)


STEPS = st.lists(
    st.tuples(st.sampled_from(["claim", "release", "renew", "expire"]), st.integers(0, 4), st.integers(0, 60)),
    max_size=60,
)


@any_given(STEPS, st.integers(1, 3))
def test_limits_and_tokens_hold_whatever_happens(steps: list[tuple[str, int, int]], slots: int) -> None:
    settings, pool, now, sequence, tokens = Settings(slots=slots), POOL.initial, 0.0, 0, [0]
    for what, lane_number, wait in steps:
        now += wait
        ctx = Context(now=at(now), settings=settings)
        lane = f"lane{lane_number}"
        held = pool.held.get(lane)
        facts: list[Fact] = {
            "claim": lambda: claim(ClaimSlot(lane=lane, holder=f"{lane}-{sequence}"), pool, ctx),
            "release": lambda: release(
                ReleaseSlot(lane=lane, holder=held.holder if held else "nobody", token=held.token if held else 0),
                pool,
                ctx,
            ),
            "renew": lambda: renew(RenewSlot(lane=lane, token=held.token if held else 99), pool, ctx),
            "expire": lambda: expire(pool, at(now), slots),
        }[what]()
        for fact in facts:
            sequence += 1
            pool = POOL.evolve(pool, Recorded(sequence, at(now), fact))
            if isinstance(fact, SlotClaimed):
                assert sequence > tokens[-1]
                tokens.append(sequence)
        assert len(pool.held) <= slots
        if what != "claim":
            waits = [one for one in pool.queue if one.lane not in pool.held]
            assert not waits or len(pool.held) == slots or what == "renew"
