"""Our parser of headers answers as nats-py's own does, whatever arrives."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client

from sparring.log.headers import Headers, parse_header_lines

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


@given(st.lists(st.from_regex(rb"[A-Za-z][A-Za-z0-9-]{0,3}:[^\r\n]{0,20}", fullmatch=True), max_size=8))
@example([b"A:1", b"A: 2 ", b"B:x", b"AA:3"])
def test_a_header_that_is_searched_for_is_the_one_that_nats_py_parses(lines: list[bytes]) -> None:
    raw = b"\r\n".join(lines) + b"\r\n\r\n"
    parsed = Client._parse_header_lines(raw)
    found = Headers(b"NATS/1.0\r\n" + raw)
    assert dict(found) == parsed
    assert {name: found[name] for name in parsed} == parsed
    assert [found.get(name) for name in parsed] == list(parsed.values())
    assert found.get("never-there") is None


@given(LINES)
def test_whatever_nats_py_takes_for_a_header_can_be_listed(lines: list[bytes]) -> None:
    raw = b"\r\n".join(lines) + b"\r\n\r\n"
    assert list(Headers(b"NATS/1.0\r\n" + raw)) == list(Client._parse_header_lines(raw))
