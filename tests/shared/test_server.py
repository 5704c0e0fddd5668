"""The embedded server: however long it reads its log back, somebody waits for it and is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparring import server
from sparring.errors import BadInput
from sparring.server import EmbeddedServer, alive


def test_who_waits_for_a_start_is_told_what_the_server_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SAY_EVERY_S", 0.0)
    said: list[str] = []
    one = EmbeddedServer(tmp_path)
    try:
        assert alive(one.start(say=said.append).url)
    finally:
        one.kill()
    assert said and all(text.startswith("the server reads its log back, for ") for text in said)


def test_a_start_that_takes_longer_than_somebody_waits_leaves_nothing_behind(tmp_path: Path) -> None:
    one = EmbeddedServer(tmp_path)
    with pytest.raises(BadInput, match=f"nats-server in {tmp_path} was not healthy within 0 s"):
        one.start(0.0)
    assert one.process is None or one.process.poll() is not None
