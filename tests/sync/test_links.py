"""A node's way to the store that failed again and again is left alone until its breaker's deadline, then tried once."""

from __future__ import annotations

from datetime import timedelta

from sparring.contracts.health import BreakerClosed, BreakerOpened
from sparring.decider import Recorded
from sparring.testing import at
from sync.core.picture import CustodyPicture, Node

LINK = {"breaker": "link-n1", "scope": "link", "node": "n1", "times": 1}


def node(*facts: BreakerOpened | BreakerClosed) -> Node:
    picture = CustodyPicture()
    for number, fact in enumerate(facts):
        picture.apply(Recorded(number + 1, at(0), fact))
    return picture.all.nodes["n1"]


OPENED = BreakerOpened(**LINK, failures=5, limit=5, until=at(60), reason="refused")


def test_nothing_is_granted_while_the_links_breaker_is_open_then_one_trial_then_all() -> None:
    one = node(OPENED)
    assert (one.transfers(3, at(59)), one.transfers(3, at(60))) == (0, 1)
    assert node(OPENED, BreakerClosed(**LINK, reason="the trial succeeded")).transfers(3, at(1)) == 3


def test_a_node_that_leaves_brings_its_games_out_whatever_its_breaker_says() -> None:
    one = node(OPENED)
    one.draining = True
    assert one.transfers(3, at(0) + timedelta(seconds=1)) == 3


def test_a_transfer_that_failed_for_weeks_is_still_tried_every_minute() -> None:
    from sync.core.batch import Batch
    from sync.core.plan import _retry_at

    pauses = [_retry_at(Batch(failures=times)).total_seconds() for times in (0, 1, 2, 6, 7, 1_100, 10**6)]
    assert pauses == [0, 1, 2, 32, 60, 60, 60]
