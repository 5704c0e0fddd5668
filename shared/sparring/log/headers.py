"""Headers of messages as nats-py reads them, parsed only where somebody looks.

nats-py looks at every character of every header's name in every message; nine tenths of a replay went there. A fold asks
for five of fifteen headers, so each is searched for when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from nats.aio.client import Client


@lru_cache(maxsize=4096)
def _key(name: bytes) -> str | None:
    """The name of the header, None where nats-py skips the line."""
    parsed: dict[str, str] = Client._parse_header_lines(name + b":v\r\n")
    return next(iter(parsed), None)


@lru_cache(maxsize=4096)
def _line(name: str) -> bytes:
    return b"\r\n" + name.encode() + b":"


def parse_header_lines(raw: bytes) -> dict[str, str]:
    """`Name: value` per line, as `Client._parse_header_lines` answers."""
    found = {}
    for line in raw.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon and (key := _key(name)) is not None:
            found[key] = value.strip().decode("utf-8", "replace")
    return found


def block_of(headers: Mapping[str, str]) -> bytes:
    """The header block as it travels."""
    if isinstance(headers, Headers):
        return headers.block
    return "".join(("NATS/1.0\r\n", *(f"{name}: {value}\r\n" for name, value in headers.items()), "\r\n")).encode()


class Headers(Mapping[str, str]):
    """What stands in a message's header block, `NATS/1.0` and its end included. Of a name that comes twice the last counts.

    `get` knows names as HTTP has them, letters, digits and dashes; what else nats-py takes for a name is found by `[]`.
    """

    __slots__ = ("block",)

    def __init__(self, block: bytes) -> None:
        self.block = block

    def __getitem__(self, name: str) -> str:
        found: str | None = self.get(name)
        return found if found is not None else self._all()[name]

    def get(self, name: str, default: Any = None) -> Any:
        block, line = self.block, _line(name)
        place = block.rfind(line)
        if place < 0:
            return default
        begin = place + len(line)
        return str(block[begin : block.find(b"\r\n", begin)].strip(), "utf-8", "replace")

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return f"Headers({self._all()})"

    def _all(self) -> dict[str, str]:
        return parse_header_lines(self.block[self.block.find(b"\r\n") + 2 :])
