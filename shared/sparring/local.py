"""A whole cluster for the length of a test: `with sparring.local_cluster("lanes.toml") as cluster: …`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from sparring.client import BlockingClient, connect
from sparring.errors import BadInput, CannotAnswer, LogUnavailable, SparringError
from sparring.lane_file import load_lanes
from sparring.place import recall
from sparring.server import end_left_over

# agents save what runs, then the services end, then the server: `spar up` has limits of its own below this
STOP_S = 120.0
LOOK_S = 0.1


class ClusterEnded(SparringError):
    """`spar up` ended before the cluster was there; its own words follow."""


class LocalCluster:
    """`spar up` as a process in a folder. `data` is its data folder, `output` what it says."""

    def __init__(self, folder: Path, lanes: Path, *options: str, environ: Mapping[str, str] | None = None) -> None:
        """Starts it; `options` are those of `spar up`. Its caches and its outbox lie in the folder too."""
        self.data, self.output, self.lanes = folder / "data", folder / "up.log", lanes
        self._said = ""
        argv = [sys.executable, "-m", "sparring.cli", "up", "--data", str(self.data), "--lanes", str(lanes), *options]
        homes = {"XDG_CACHE_HOME": str(folder / "cache"), "XDG_STATE_HOME": str(folder / "state")}
        self.environ = {**os.environ, **homes, **(environ or {})}
        for name in ("SPARRING_DATA", "SPARRING_NATS_URL"):
            self.environ.pop(name, None)
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, env=self.environ, start_new_session=True)

    @property
    def url(self) -> str:
        """Where its server listens. Raises BadInput before there is one."""
        known = recall(self.data)
        if known is None:
            raise BadInput(f"{self.data}: no server runs there yet; wait with ready()")
        return known["url"]

    @property
    def text(self) -> str:
        """What it said; of a cluster that has ended also when its folder is gone."""
        with contextlib.suppress(FileNotFoundError):
            self._said = self.output.read_text()
        return self._said

    def connect(self) -> BlockingClient:
        """`with cluster.connect() as client: …`; for async code, `sparring.Client(cluster.url)`."""
        return connect(self.url, outbox=self.data / "outbox")

    def ready(self, within_s: float = 60.0) -> None:
        """Returns once every lane of the file is registered. Raises ClusterEnded, TimeoutError."""
        wanted, end = {spec.name for spec in load_lanes(self.lanes)}, time.monotonic() + within_s
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise ClusterEnded(f"spar up ended with {self.process.returncode}:\n{self.text[-2000:]}")
            with contextlib.suppress(BadInput, CannotAnswer, LogUnavailable), self.connect() as client:
                if wanted <= {row["lane"] for row in client.rows("select lane from pipeline_lanes")}:
                    return
            time.sleep(LOOK_S)
        raise TimeoutError(f"the lanes were not registered within {within_s:g} s:\n{self.text[-2000:]}")

    def spar(self, *arguments: str, check: bool = True) -> str:
        """What a command says about this cluster. Raises CalledProcessError unless `check` is off."""
        argv = [sys.executable, "-m", "sparring.cli", *arguments, "--data", str(self.data)]
        done = subprocess.run(argv, capture_output=True, text=True, env=self.environ, timeout=60)
        if check and done.returncode:
            raise subprocess.CalledProcessError(done.returncode, argv, done.stdout, done.stderr)
        return done.stdout

    def wait(self, within_s: float = 120.0) -> int:
        """Its exit code, once it ends by itself."""
        return self.process.wait(within_s)

    def stop(self) -> None:
        """Drains it; nothing of it is left, even when it does not end."""
        try:
            self._end()
        finally:
            _ = self.text

    def _end(self) -> None:
        if self.process.poll() is not None:
            # it may have been killed, and its server not
            end_left_over(self.data)
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            with self.output.open("a") as log:
                print(f"it did not end within {STOP_S:.0f} s; killed", file=log)
            end_left_over(self.data)


@contextlib.contextmanager
def local_cluster(
    lanes: Path | str, *, agents: int = 1, folder: Path | str | None = None, within_s: float = 60.0,
    environ: Mapping[str, str] | None = None,
) -> Iterator[LocalCluster]:  # fmt: skip
    """Server, services and agents with the lanes of the file, ready to use; all of it has ended afterwards.

    Without a `folder` everything lies in a temporary one, which is removed. `environ` is what its processes see beside
    this one's environment, such as `SPARRING_SYNC__KEEP_S`. Raises BadInput for a lane file with a mistake,
    ClusterEnded, TimeoutError.
    """
    with contextlib.ExitStack() as stack:
        home = Path(folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="sparring-cluster-")))
        home.mkdir(parents=True, exist_ok=True)
        load_lanes(Path(lanes))
        one = LocalCluster(home, Path(lanes), "--agents", str(agents), environ=environ)
        stack.callback(one.stop)
        one.ready(within_s)
        yield one
