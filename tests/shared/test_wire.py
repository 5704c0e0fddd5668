"""Our look at the wire finds the messages that nats-py's own parser finds, wherever the reads end."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from nats.protocol.parser import Parser

from sparring.log.wire import SwiftParser

OURS = b"7"


class Heard:
    """What a connection's parser tells it."""

    def __init__(self) -> None:
        self._ps = Parser(self)
        self.messages: list[tuple[int, bytes, bytes, bytes, bytes]] = []
        self.rest: list[str] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.messages.append((sid, subject, reply, headers or b"", data))

    async def _process_ping(self) -> None:
        self.rest.append("ping")

    async def _process_pong(self) -> None:
        self.rest.append("pong")

    async def _process_err(self, text: str) -> None:
        self.rest.append(text)

    async def _process_info(self, info: Any) -> None:
        self.rest.append(str(info))


def message(sid: bytes, reply: bytes, headers: bytes, body: bytes) -> bytes:
    words = [b"evt.a.b", sid, *([reply] if reply else [])]
    if not headers:
        return b"MSG " + b" ".join([*words, b"%d" % len(body)]) + b"\r\n" + body + b"\r\n"
    block = b"NATS/1.0\r\n" + headers + b"\r\n\r\n"
    sizes = [b"%d" % len(block), b"%d" % (len(block) + len(body))]
    return b"HMSG " + b" ".join([*words, *sizes]) + b"\r\n" + block + body + b"\r\n"


PIECES = st.lists(
    st.one_of(
        st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'slow'\r\n", b'INFO {"a":1}\r\n']),
        st.builds(
            message,
            st.sampled_from([OURS, b"3"]),
            st.sampled_from([b"", b"$JS.ACK.x"]),
            st.sampled_from([b"", b"ce-id: 1", b"A: MSG 7"]),
            st.one_of(st.sampled_from([b"", b"\r\nMSG evt 7 3\r\nabc\r\n", b"HMSG "]), st.binary(max_size=40)),
        ),
    ),
    max_size=12,
)


async def told(parser: Any, wire: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    for begin, end in pairwise(places):
        await parser.parse(wire[begin:end])


@given(PIECES, st.lists(st.integers(0, 10_000), max_size=8))
@example([message(OURS, b"$JS.ACK.x", b"ce-id: 1", b"body"), b"PING\r\n", message(b"3", b"", b"", b"x")], [5, 20, 40])
def test_what_is_ours_and_what_is_not_arrives_as_nats_py_would_hear_it(pieces: list[bytes], cuts: list[int]) -> None:
    async def both() -> tuple[Heard, Heard, list[tuple[bytes, bytes, bytes, bytes]]]:
        plain, swift, ours = Heard(), Heard(), list[tuple[bytes, bytes, bytes, bytes]]()
        SwiftParser.of(swift).sinks[OURS] = lambda *heard: ours.append(heard)  # type: ignore[arg-type]
        await told(plain._ps, b"".join(pieces), cuts)
        await told(swift._ps, b"".join(pieces), cuts)
        return plain, swift, ours

    plain, swift, ours = asyncio.run(both())
    assert ours == [one[1:] for one in plain.messages if one[0] == 7]
    assert swift.messages == [one for one in plain.messages if one[0] != 7]
    assert swift.rest == plain.rest


@given(PIECES, PIECES, st.lists(st.integers(0, 10_000), max_size=4))
def test_a_sink_that_comes_and_goes_loses_nothing(before: list[bytes], after: list[bytes], cuts: list[int]) -> None:
    """What was in the middle of a message when the sink came or went arrives, at the sink or at nats-py."""
    wire, then = b"".join(before), b"".join(after)

    async def both() -> tuple[Heard, Heard, list[Any]]:
        plain, swift, ours = Heard(), Heard(), list[Any]()
        half = len(wire) // 2
        for part in (wire[:half], wire[half:], then):
            await told(plain._ps, part, cuts)
        await told(swift._ps, wire[:half], cuts)
        parser = SwiftParser.of(swift)
        parser.sinks[OURS] = lambda *heard: ours.append((7, *heard))
        await told(parser, wire[half:], cuts)
        parser.sinks.clear()
        await told(parser, then, cuts)
        return plain, swift, ours

    plain, swift, ours = asyncio.run(both())
    assert sorted(swift.messages + ours) == sorted(plain.messages)
    assert swift.rest == plain.rest
