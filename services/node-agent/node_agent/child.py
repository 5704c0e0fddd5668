"""One task's child process: in a group of its own, limited, watched, never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PDEATHSIG = 1
LAST_LINES = 20
LONGEST_LINE = 4 * 1024 * 1024


class TaskFailure(Exception):
    """The child did not do what it was asked for; the message is the reason that people read."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.permanent = permanent


@dataclass(frozen=True)
class Result:
    """What the program's result line said."""

    files: tuple[dict[str, Any], ...]
    evidence: dict[str, Any]
    raw: dict[str, Any]


def _before_exec(nice: int, memory_bytes: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def prepare() -> None:
        if libc is not None:
            # an agent that is killed leaves no orphan
            libc.prctl(PDEATHSIG, signal.SIGKILL)
        os.nice(nice)
        if memory_bytes:
            resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))

    return prepare


class Child:
    """Runs one program; `on_progress` gets (done, of)."""

    def __init__(
        self, argv: Sequence[str], folder: Path, env: Mapping[str, str], nice: int, memory_bytes: int = 0
    ) -> None:
        self._argv = [sys.executable if argv[0] == "python" else argv[0], *argv[1:]]
        self._folder, self._env, self._nice, self._memory = folder, env, nice, memory_bytes
        self._process: asyncio.subprocess.Process | None = None
        self.stopped = ""
        self.on_started: Callable[[], None] = lambda: None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def run(self, timeout_s: float, on_progress: Callable[[float, float], None]) -> Result:
        """The result line. Raises TaskFailure when there is none, the exit code is not 0, or time is up."""
        errors = self._folder / "stderr.log"
        with errors.open("wb") as log:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._argv,
                    env={**os.environ, **self._env},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=_before_exec(self._nice, self._memory),
                    limit=LONGEST_LINE,
                )
            except OSError as error:
                raise TaskFailure(f"{self._argv[0]} can't be run: {error.strerror}", permanent=True) from error
        self.on_started()
        try:
            async with asyncio.timeout(timeout_s):
                result = await self._listen(on_progress)
                code = await self._process.wait()
        except TimeoutError as error:
            self.kill()
            await self._process.wait()
            raise TaskFailure(f"ran longer than {timeout_s:.0f} s; killed") from error
        except BaseException:
            self.kill()
            raise
        finally:
            self._sweep()
        if code != 0:
            raise TaskFailure(self._why(code, errors), permanent=code == 2)
        if result is None:
            raise TaskFailure("exit code 0 without a result line: a completion carries its evidence")
        return result

    async def _listen(self, on_progress: Callable[[float, float], None]) -> Result | None:
        assert self._process is not None and self._process.stdout is not None
        result: Result | None = None
        async for line in self._process.stdout:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                told = json.loads(line)
                if "progress" in told:
                    on_progress(float(told["progress"]["done"]), float(told["progress"]["of"]))
                elif "result" in told:
                    found = told["result"]
                    result = Result(tuple(found.get("files", ())), dict(found.get("evidence", {})), found)
        return result

    def _why(self, code: int, errors: Path) -> str:
        tail = errors.read_text(errors="replace").splitlines()[-LAST_LINES:]
        ended = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
        stopped = f" after it was told to stop ({self.stopped})" if self.stopped else ""
        return f"{ended}{stopped}: " + ("\n".join(tail)[-1500:] or "it said nothing")

    def terminate(self, reason: str) -> None:
        """Asks the program to write what it has and end."""
        self.stopped = reason
        self._signal(signal.SIGTERM)

    def kill(self, reason: str = "") -> None:
        self.stopped = reason or self.stopped
        self._signal(signal.SIGKILL)

    def _signal(self, signum: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signum)

    def _sweep(self) -> None:
        """Whatever of the group outlived its leader."""
        self._signal(signal.SIGKILL)


def kill_leftovers(leader: int, since: float) -> None:
    """Ends every process of a group whose leader was ours; `since` keeps a reused process id out."""
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getpgid(one.pid) == leader and one.create_time() >= since - 1:
                one.kill()
