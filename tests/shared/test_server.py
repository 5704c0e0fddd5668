"""The embedded server: however long it reads its log back, somebody waits for it and is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sparring import server
from sparring.errors import BadInput
from sparring.server import EmbeddedServer, alive, end_left_over


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


def test_who_stops_waiting_for_a_start_leaves_no_server_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the log is read back: a second start would find another server writing to its store."""
    monkeypatch.setattr(server, "SAY_EVERY_S", 0.0)

    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    one = EmbeddedServer(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        one.start(say=interrupted)
    assert one.process is not None and one.process.poll() is not None


OWNER = """
import sys, time
from pathlib import Path
from sparring.server import EmbeddedServer
one = EmbeddedServer(Path(sys.argv[1]))
if sys.argv[2] == "early":
    # killed before its server has said that it is ready
    one._await_ready = lambda *_: print(one.process.pid, flush=True) or time.sleep(600)
print(one.start().pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("when", ["early", "late"])
def test_a_server_whose_owner_was_killed_is_ended_before_another_one_opens_its_store(tmp_path: Path, when: str) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path), when], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    left = psutil.Process(int(owner.stdout.readline()))
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert left.is_running()
    one = EmbeddedServer(tmp_path)
    try:
        address = one.start()
        assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE
        assert alive(address.url)
    finally:
        one.kill()


def test_a_process_that_has_its_number_by_chance_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        (tmp_path / "run" / "started.pid").write_text(str(other.pid))
        end_left_over(tmp_path)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
