"""The stored log proves its guards: what was appended without one, or over a wrong pattern, is found."""

from __future__ import annotations

from collections.abc import Sequence

import nats.js
import pytest
from nats.aio.client import Client

from sparring.log import JetStreamLog, Outgoing
from sparring.log.guards import GuardCheck, unguarded
from sparring.log.interface import Expect, Raw
from sparring.testing import at

LANE, NODE = "evt.lifecycle.lane.hex", "evt.health.node.n1"


def guarded(subject: str, sequence: int) -> Outgoing:
    return Outgoing(f"{subject}.Something", {}, b"{}", Expect(f"{subject}.>", sequence))


def further(subject: str) -> Outgoing:
    return Outgoing(f"{subject}.Something", {}, b"{}")


async def findings(nc: Client) -> list[str]:
    check = GuardCheck()
    # in two pieces, the border inside of a batch
    raws = await JetStreamLog(nc).load("evt.>")
    pieces = check.take(raws[:2]) + check.take(raws[2:])
    assert pieces == await unguarded(JetStreamLog(nc))
    return pieces


async def test_what_the_log_appends_is_guarded(nc: Client) -> None:
    log = JetStreamLog(nc)
    await log.append([guarded(LANE, 0)], "a")
    await log.append([guarded(LANE, 1), further(LANE), guarded(NODE, 0), further(LANE)], "b")
    await log.append([guarded(LANE, 5)], "c")
    assert await findings(nc) == []


@pytest.mark.parametrize(
    ("headers", "what"),
    [
        ({}, "without an expected sequence"),
        ({"Nats-Expected-Last-Subject-Sequence": "0"}, "over None"),
        (
            {
                "Nats-Expected-Last-Subject-Sequence": "1",
                "Nats-Expected-Last-Subject-Sequence-Subject": "evt.lifecycle.lane.>",
            },
            "over evt.lifecycle.lane.>",
        ),
    ],
)
async def test_an_append_beside_the_log_is_found_in_the_stream(nc: Client, headers: dict[str, str], what: str) -> None:
    await JetStreamLog(nc).append([guarded(LANE, 0)], "a")
    js: nats.js.JetStreamContext = nc.jetstream()
    await js.publish(f"{LANE}.Other", b"{}", headers=headers)
    found = await findings(nc)
    assert len(found) == 1
    assert found[0].startswith(f"2: {LANE}.Other ")
    assert what in found[0]


def stored(*messages: tuple[int, str, dict[str, str]]) -> Sequence[Raw]:
    return [Raw(sequence, at(0), f"{subject}.Something", headers, b"{}") for sequence, subject, headers in messages]


def expecting(subject: str, sequence: int) -> dict[str, str]:
    return {
        "Nats-Expected-Last-Subject-Sequence": str(sequence),
        "Nats-Expected-Last-Subject-Sequence-Subject": f"{subject}.>",
    }


def test_a_stale_append_that_was_let_through_is_a_lost_update() -> None:
    log = stored((1, LANE, expecting(LANE, 0)), (2, LANE, expecting(LANE, 1)), (3, LANE, expecting(LANE, 1)))
    assert GuardCheck().take(log) == [
        f"3: {LANE}.Something was let through on sequence 1, but its entity stood at 2: an update was lost"
    ]


def test_a_batch_is_no_excuse_for_another_entity_or_another_batch() -> None:
    first = expecting(LANE, 0) | {"Nats-Batch-Id": "a"}
    log = stored((1, LANE, first), (2, NODE, {"Nats-Batch-Id": "a"}), (3, LANE, {"Nats-Batch-Id": "b"}))
    assert [text.split(":")[0] for text in GuardCheck().take(log)] == ["2", "3"]


def test_an_expectation_that_points_into_the_archive_is_not_doubted() -> None:
    log = stored((100, LANE, expecting(LANE, 40)), (101, LANE, expecting(LANE, 100)), (102, NODE, expecting(NODE, 101)))
    assert [text.split(":")[0] for text in GuardCheck().take(log)] == ["102"]
