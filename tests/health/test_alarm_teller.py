"""An alarm reaches the webhook and the command, whatever is down or killed meanwhile; once told, it is not told again."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nats
import pytest

from health.teller import NotTold, post, run_command
from sparring.contracts.health import AlarmCleared, AlarmRaised
from sparring.hearing import heard
from sparring.log import JetStreamLog
from sparring.server import EmbeddedServer
from sparring.testing import eventually
from sparring.testing.processes import Replica, app_of, running

MISSING = {"lifecycle", "pipeline", "selfplay-orch", "sync", "training-slots"}


class Receiver:
    """A webhook on loopback: refuses with 503 while `down`, keeps what it took."""

    def __init__(self) -> None:
        self.down, self.refused = False, 0
        self.took: list[tuple[str, dict[str, object]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.down:
                    outer.refused += 1
                else:
                    outer.took.append((self.headers["Idempotency-Key"], json.loads(body)))
                self.send_response(503 if outer.down else 204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/alarms"

    def about(self, state: str) -> set[object]:
        return {body["about"] for _, body in self.took if body["state"] == state}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.server.shutdown()


@pytest.mark.timeout(180)
async def test_alarms_that_the_webhook_refused_before_a_kill_are_told_after_it(
    server: EmbeddedServer, tmp_path: Path, receiver: Receiver
) -> None:
    assert server.address is not None
    url = server.address.url
    told = tmp_path / "told.jsonl"
    command = f"{sys.executable} -c \"import sys; open('{told}', 'a').write(sys.stdin.read() + chr(10))\""
    environ = {"SPARRING_HEALTH__WEBHOOK_URL": receiver.url, "SPARRING_HEALTH__ALARM_COMMAND": command,
               "SPARRING_HEALTH__SERVICE_SILENT_S": "2"}  # fmt: skip
    receiver.down = True
    health = Replica(app_of("health"), url, tmp_path / "health", environ=environ)
    with running(health):
        await eventually(lambda: receiver.refused >= 3, within_s=60)
        health.kill()
        receiver.down = False
        health.start()
        await eventually(lambda: receiver.about("raised") >= MISSING, within_s=90)
        await eventually(lambda: told.exists() and len(told.read_text().splitlines()) >= len(MISSING), within_s=30)
        nc = await nats.connect(url)
        facts = [heard(raw) for raw in await JetStreamLog(nc).load("evt.health.alarm.>")]
        await nc.close()
        raised = [one for one in facts if one is not None and isinstance(one.fact, AlarmRaised)]
        assert {one.fact.about for one in raised} >= MISSING
        keys = [key for key, _ in receiver.took]
        assert set(keys) >= {f"alarm-{one.sequence}" for one in raised if one.fact.about in MISSING}
        # told once each: nothing was killed between the answer and its acknowledgement
        assert len(keys) == len(set(keys))
        health.stop()
        health.start()
        pipeline = Replica(app_of("pipeline"), url, tmp_path / "pipeline")
        with running(pipeline):
            await eventually(lambda: "service-pipeline" in receiver.about("cleared"), within_s=60)
        assert any(isinstance(one.fact, AlarmCleared) for one in facts) or receiver.about("cleared")


async def test_a_command_that_fails_or_hangs_has_not_been_told() -> None:
    await run_command(f"{sys.executable} -c 'import sys; sys.exit(len(sys.stdin.read()) - 2)'", b"{}", 20)
    with pytest.raises(NotTold, match="ended with 3"):
        await run_command(f"{sys.executable} -c 'raise SystemExit(3)'", b"{}", 20)
    with pytest.raises(NotTold, match="longer than"):
        await run_command("sleep 30", b"{}", 0.2)
    with pytest.raises(NotTold, match="could not be started"):
        await run_command("/no/such/program", b"{}", 1)


def test_a_webhook_that_nobody_serves_has_not_been_told() -> None:
    with pytest.raises(NotTold, match="webhook_url"):
        post("http://127.0.0.1:9/alarms", b"{}", "k", 2)
