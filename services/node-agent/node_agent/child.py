"""One task's child process: in a group of its own, limited, watched, never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node_agent import family
from node_agent.limits import Limits, rank
from sparring.ending import ended

LAST_LINES = 20
EXIT_LOOK_S = 0.1
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


class Child:
    """Runs one program; `on_progress` gets (done, of). `mark` names its family among all processes of the machine."""

    def __init__(self, argv: Sequence[str], folder: Path, env: Mapping[str, str], limits: Limits, mark: str) -> None:
        self._argv = [sys.executable if argv[0] == "python" else argv[0], *argv[1:]]
        self._folder, self._env, self._limits, self.mark = folder, env, limits, mark
        self._process: asyncio.subprocess.Process | None = None
        self.stopped = ""
        self.on_started: Callable[[], None] = lambda: None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def run(self, timeout_s: float, on_progress: Callable[[float, float], None]) -> Result:
        """The result line. Raises TaskFailure when there is none, the exit code is not 0, or time is up."""
        errors = self._folder / "stderr.log"
        self._process = process = await self._start(errors)
        ranking = asyncio.create_task(rank(process.pid))
        try:
            self.on_started()
            if self.stopped:
                raise TaskFailure(f"told to stop before it ran ({self.stopped})")
            async with asyncio.timeout(timeout_s):
                result = await self._listen(process, on_progress)
                code = await process.wait()
        except TimeoutError as error:
            self.kill()
            raise TaskFailure(f"ran longer than {timeout_s:.0f} s; killed") from error
        except BaseException:
            self.kill()
            raise
        finally:
            await ended(ranking)
            await asyncio.shield(self.swept())
        if code != 0:
            raise TaskFailure(self._why(code, errors), permanent=code == 2)
        if result is None:
            raise TaskFailure("exit code 0 without a result line: a completion carries its evidence")
        return result

    async def _start(self, errors: Path) -> asyncio.subprocess.Process:
        with errors.open("wb") as log:
            try:
                return await asyncio.create_subprocess_exec(
                    *self._argv,
                    env={**os.environ, **self._env, **self._limits.environ, family.MARK: self.mark},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=self._limits.before_exec(),
                    limit=LONGEST_LINE,
                )
            except OSError as error:
                raise TaskFailure(f"{self._argv[0]} can't be run: {error.strerror}", permanent=True) from error

    async def _listen(
        self, process: asyncio.subprocess.Process, on_progress: Callable[[float, float], None]
    ) -> Result | None:
        """Until the program itself ends: what it left running may hold its stdout open for ever."""
        assert process.stdout is not None
        result: Result | None = None
        ended = asyncio.create_task(_exited(process))
        try:
            while True:
                line = asyncio.create_task(process.stdout.readline())
                await asyncio.wait((line, ended), return_when=asyncio.FIRST_COMPLETED)
                if not line.done():
                    # what the program wrote last is in the pipe already
                    await asyncio.wait((line,), timeout=1.0)
                if not line.done():
                    line.cancel()
                    return result
                if not (text := line.result()):
                    return result
                with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                    told = json.loads(text)
                    if "progress" in told:
                        on_progress(float(told["progress"]["done"]), float(told["progress"]["of"]))
                    elif "result" in told:
                        found = told["result"]
                        result = Result(tuple(found.get("files", ())), dict(found.get("evidence", {})), found)
        finally:
            ended.cancel()

    def _why(self, code: int, errors: Path) -> str:
        tail = errors.read_text(errors="replace").splitlines()[-LAST_LINES:]
        ended = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
        stopped = f" after it was told to stop ({self.stopped})" if self.stopped else ""
        limit = self._limits
        over = f" over its memory limit of {limit.memory_bytes} bytes (cgroup)" if limit.exceeded() else ""
        if not over and limit.memory_bytes and limit.cgroup is None and any("MemoryError" in line for line in tail):
            over = f" over its memory limit of {limit.memory_bytes} bytes (rlimit)"
        return f"{ended}{stopped}{over}: " + ("\n".join(tail)[-1500:] or "it said nothing")

    def terminate(self, reason: str) -> None:
        """Asks the program to write what it has and end."""
        self.stopped = reason
        self._signal(signal.SIGTERM)

    def kill(self, reason: str = "") -> None:
        """The group dies now; whoever left it is ended by `swept`, which follows."""
        self.stopped = reason or self.stopped
        self._signal(signal.SIGKILL)

    def _signal(self, signum: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signum)

    async def swept(self) -> None:
        """Nobody of the family is left, in whatever session or group it went."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            await asyncio.to_thread(family.end, self.mark, self._process.pid)


async def _exited(process: asyncio.subprocess.Process) -> None:
    # wait() also waits for the end of stdout, which a program's own children may keep open
    while process.returncode is None:
        await asyncio.sleep(EXIT_LOOK_S)
