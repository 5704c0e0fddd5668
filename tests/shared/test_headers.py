"""Our parser of headers answers as nats-py's own does, whatever arrives."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client

from sparring.log.headers import parse_header_lines

LINES = st.lists(
    st.one_of(st.binary(max_size=30), st.from_regex(rb"[A-Za-z -]{0,8}:[^\r\n]{0,20}", fullmatch=True)), max_size=6
)


@given(LINES)
@example(
    [b"ce-id: a:b", b"Empty:", b": nameless", b"two words: x", b"no colon", "Ünicode: ü".encode(), b"A:1", b"A:2", b""]
)
def test_headers_are_parsed_as_nats_py_does(lines: list[bytes]) -> None:
    raw = b"\r\n".join(lines) + b"\r\n\r\n"
    assert parse_header_lines(raw) == Client._parse_header_lines(raw)
