"""Our way to send and to wait for an answer does what nats-py's does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import nats.errors
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from sparring.log import Expect, JetStreamLog, Outgoing
from sparring.log.requests import Requests, publish
from sparring.log.wire import SwiftParser
from sparring.server import EmbeddedServer
from sparring.testing import eventually

SLOT = "evt.training-slots.pool.main.>"


class Written(Client):
    """A connection that only writes down what it would send."""

    def __init__(self) -> None:
        super().__init__()
        self._status, self._max_payload = Client.CONNECTED, 100
        self.commands: list[bytes] = []

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:
        self.commands.append(cmd)


def sent(*, ours: bool, subject: str, body: bytes, reply: str, headers: dict[str, str] | None) -> object:
    """The commands and what was counted, or the error's class."""

    async def send() -> object:
        nc = Written()
        try:
            if ours:
                await publish(nc, subject, body, reply, headers)
            else:
                await nc.publish(subject, body, reply=reply, headers=headers)
        except (nats.errors.Error, UnicodeError) as error:
            return type(error)
        return nc.commands, nc.stats

    return asyncio.run(send())


NAMES = st.one_of(
    st.sampled_from(["ce-id", "Nats-Msg-Id", "", " ce-id ", "two words", "a:b", "x\r\n"]), st.text(max_size=4)
)
VALUES = st.one_of(
    st.sampled_from(["", " x ", "a\r\nPUB evil 0", "a\nb", "a\rb", "ü: ü", "\u2003"]), st.text(max_size=8)
)


@given(
    st.sampled_from(["evt.a.b", "evt.ü", "", "evt a", "evt.a\r\nPUB x 0"]),
    st.one_of(st.binary(max_size=20), st.just(b"x" * 101)),
    st.sampled_from(["", "_INBOX.a.1"]),
    st.one_of(st.none(), st.dictionaries(NAMES, VALUES, max_size=4)),
)
@example("evt.a.b", b"x", "_INBOX.a.1", {"ce-id": "1", "Nats-Msg-Id": "a\r\nb"})
@example("evt.a.b", b"x", "_INBOX.a.1", {"ce-id": "1", "Nats-Msg-Id": ""})
@example("evt.a.b", b"x", "_INBOX.a.1", {"ce-id": " 1 "})
@example("evt.a.b", b"x" * 101, "_INBOX.a.1", {"ce-id": "1"})
@example("evt.a\r\nPUB x 0", b"x", "_INBOX.a.1", {"ce-id": "1"})
def test_what_is_sent_is_what_nats_py_sends(
    subject: str, body: bytes, reply: str, headers: dict[str, str] | None
) -> None:
    ours = sent(ours=True, subject=subject, body=body, reply=reply, headers=headers)
    assert ours == sent(ours=False, subject=subject, body=body, reply=reply, headers=headers)


async def echo(nc: Client) -> None:
    async def answer(message: Msg) -> None:
        await nc.publish(message.reply, message.data, headers=message.headers)

    await nc.subscribe("echo", cb=answer)


async def test_everyone_gets_the_answer_to_his_own_request(nc: Client) -> None:
    await echo(nc)
    asked = [b"%d" % number for number in range(500)]
    headers = [None if number % 2 else {"A": "b"} for number in range(500)]
    answers = await asyncio.gather(
        *(Requests.of(nc).ask(nc, "echo", body, head, 5) for body, head in zip(asked, headers, strict=True))
    )
    assert [one.data for one in answers] == asked
    assert {(one.status, one.description) for one in answers} == {("", "")}


async def test_an_answer_that_nats_py_reads_counts_as_well(nc: Client) -> None:
    await echo(nc)
    requests = Requests.of(nc)
    await requests.ask(nc, "echo", b"first", None, 5)
    # as when it had begun to read before our look at the wire was there
    SwiftParser.of(nc).sinks.clear()
    assert (await requests.ask(nc, "echo", b"second", {"A": "b"}, 5)).data == b"second"


async def test_nobody_there_and_no_answer_in_time_are_told_apart_and_forgotten(nc: Client) -> None:
    requests = Requests.of(nc)
    with pytest.raises(nats.errors.NoRespondersError):
        await requests.ask(nc, "nobody", b"", None, 5)
    silent = await nc.subscribe("silent")
    with pytest.raises(nats.errors.TimeoutError):
        await requests.ask(nc, "silent", b"", None, 0.05)
    late = await silent.next_msg()
    await nc.publish(late.reply, b"too late")
    waiting = asyncio.create_task(requests.ask(nc, "silent", b"", None, 60))
    await silent.next_msg()
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert waiting.cancelled() and not requests._waiting
    await echo(nc)
    assert (await requests.ask(nc, "echo", b"still", None, 5)).data == b"still"


async def test_many_who_are_the_first_share_one_inbox(nc: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    subscribe = nc.subscribe

    async def slowly(subject: str, **options: Any) -> Subscription:
        # as when the connection's buffer is full
        await asyncio.sleep(0)
        return await subscribe(subject, **options)

    monkeypatch.setattr(nc, "subscribe", slowly)
    logs = [JetStreamLog(nc) for _ in range(20)]
    before = len(nc._subs)
    assert await asyncio.gather(*(log.end() for log in logs)) == [0] * 20
    assert len(nc._subs) <= before + 1


async def test_answers_come_again_once_the_server_is_back(server: EmbeddedServer, nc: Client) -> None:
    assert server.address is not None
    log = JetStreamLog(nc, timeout_s=1)
    await log.append(
        [Outgoing("evt.training-slots.pool.main.SlotClaimed", {"Nats-Msg-Id": "1"}, b"1", Expect(SLOT, 0))], ""
    )
    server.port = int(server.address.url.rpartition(":")[2])
    server.kill()
    await eventually(lambda: not nc.is_connected)
    server.start()
    await eventually(lambda: nc.is_connected)
    state = json.loads((await Requests.of(nc).ask(nc, "$JS.API.STREAM.INFO.EVENTS", b"", None, 5)).data)["state"]
    assert state["last_seq"] == 1
    assert await log.last(SLOT) == 1
