"""What a handler works on stays in its hands, however long the server would wait."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nats.aio.client import Client

from sparring import patience
from sparring.patience import in_hand
from sparring.streams import COMMANDS, service_durables
from sparring.testing import eventually
from sparring.topology import declare_durable

ACK_WAIT_S = 0.5


@pytest.mark.parametrize("held", [True, False])
async def test_only_a_message_that_is_in_hand_outlives_the_servers_patience(
    nc: Client, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    monkeypatch.setattr(patience, "IN_HAND_S", 0.1 if held else 3600.0)
    js = nc.jetstream()
    await declare_durable(js, replace(service_durables("sync")[0], ack_wait_s=ACK_WAIT_S))
    pull = await js.pull_subscribe_bind("sync", COMMANDS)
    await js.publish("cmd.sync.thing.a.Do", b"a")
    (first,) = await pull.fetch(1, timeout=5)
    with in_hand(first):
        # the server's own clock: four waits for an answer pass on this pull
        try:
            again = await pull.fetch(1, timeout=4 * ACK_WAIT_S)
        except TimeoutError:
            again = []
    assert [one.metadata.num_delivered for one in again] == ([] if held else [2])
    if held:
        await first.ack_sync()
        await eventually(lambda: _none_in_hand(js))


async def _none_in_hand(js) -> bool:  # type: ignore[no-untyped-def]
    return (await js.consumer_info(COMMANDS, "sync")).num_ack_pending == 0
