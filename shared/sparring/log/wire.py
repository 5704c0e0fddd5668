"""The messages of one subscription straight from nats-py's connection, without its parser's detours.

nats-py keeps the connection: TLS, credentials, pings, reconnects. What it reads is looked through here first: messages of
a subscription that has a sink go there at once, in their order; everything else goes on to nats-py's own parser.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nats.aio.client import Client
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

# subject, reply, header block, body
Sink = Callable[[bytes, bytes, bytes, bytes], None]


class SwiftParser(Parser):
    """nats-py's parser behind a look at whose message it is."""

    sinks: dict[bytes, Sink]
    rest: bytes

    @classmethod
    def of(cls, nc: Client) -> SwiftParser:
        """The connection's parser; it becomes this one, with whatever it has read of a message, the first time."""
        parser: Any = nc._ps
        if not isinstance(parser, SwiftParser):
            parser.__class__ = cls
            parser.sinks, parser.rest = {}, b""
        return parser  # type: ignore[no-any-return]

    def reset(self) -> None:
        super().reset()
        self.rest = b""

    async def parse(self, data: bytes = b"") -> None:
        # what nats-py had begun before is its to end
        if self.sinks and not self.buf and self.state == AWAITING_CONTROL_LINE:
            data = self._sorted_out(data)
        elif self.rest:
            data, self.rest = self.rest + data, b""
        if data:
            await super().parse(data)

    def _sorted_out(self, data: bytes) -> bytes:
        """Hands the sinks theirs; returns what is nats-py's, in complete pieces. The piece that is not complete waits."""
        read = self.rest + data if self.rest else data
        others: list[bytes] = []
        place, end = 0, len(read)
        while True:
            stop = read.find(b"\r\n", place)
            if stop < 0:
                break
            after, sink = stop + 2, None
            if read.startswith((b"HMSG ", b"MSG "), place):
                line = read[place:stop].split(b" ")
                after += int(line[-1]) + 2
                if after > end:
                    break
                sink = self.sinks.get(line[2])
            if sink is None:
                others.append(read[place:after])
            elif line[0] == b"HMSG":
                body = stop + 2 + int(line[-2])
                sink(line[1], line[3] if len(line) == 6 else b"", read[stop + 2 : body], read[body : after - 2])
            else:
                sink(line[1], line[3] if len(line) == 5 else b"", b"", read[stop + 2 : after - 2])
            place = after
        self.rest = read[place:]
        return b"".join(others)
