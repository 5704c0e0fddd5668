"""`spar up` and a server that reads a long log back: nothing else stands still, and nobody has to wait for it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sparring.cli.up import _once_each, _revive_server
from sparring.errors import BadInput
from sparring.place import recall


class Server:
    """One that has ended; its start takes until `ready`, or until it is stopped."""

    def __init__(self) -> None:
        self.process, self.address, self.port = SimpleNamespace(poll=lambda: 1), None, 0
        self.begun, self.ready, self.stops = threading.Event(), threading.Event(), 0

    def start(self, say: Any) -> Any:
        say("the server reads its log back")
        self.begun.set()
        assert self.ready.wait(60)
        if self.stops:
            raise BadInput("it was ended")
        return SimpleNamespace(url="nats://here", monitoring="http://here", pid=7)

    def stop(self) -> None:
        self.stops += 1
        self.ready.set()


def run_of(folder: Path, server: Server) -> tuple[Any, list[str]]:
    said: list[str] = []
    return SimpleNamespace(server=server, data=folder, screen=SimpleNamespace(say=said.append)), said


async def test_the_loop_goes_on_while_the_server_starts_and_its_place_is_remembered(tmp_path: Path) -> None:
    server, turns = Server(), 0
    run, said = run_of(tmp_path, server)
    reviving = asyncio.create_task(_revive_server(run, asyncio.Event()))
    while not server.begun.is_set() or turns < 20:
        turns += 1
        await asyncio.sleep(0)
    assert not reviving.done()
    server.ready.set()
    await reviving
    known = recall(tmp_path)
    assert known is not None and known["url"] == "nats://here"
    assert said[-1] == "the server reads its log back"


async def test_who_stops_meanwhile_does_not_wait_for_the_log(tmp_path: Path) -> None:
    server, stop = Server(), asyncio.Event()
    run, _ = run_of(tmp_path, server)
    reviving = asyncio.create_task(_revive_server(run, stop))
    await asyncio.to_thread(server.begun.wait, 30)
    stop.set()
    await asyncio.wait_for(reviving, 30)
    assert server.stops and recall(tmp_path) is None


async def test_a_trouble_is_said_in_a_line_and_once() -> None:
    said: list[str] = []
    heard = _once_each(said.append)
    for error in (OSError("refused"), OSError("refused"), TimeoutError(), OSError("refused")):
        await heard(error)
    assert said == ["connection: refused", "connection: TimeoutError", "connection: refused"]
