"""Keeps child processes alive: again at once, then with growing delay, with an alarm after five; drains them in order."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparring.backoff import doubled_s

FORGOTTEN_S = 3600.0
ALARM_AFTER = 5
# a supervised process ends by itself when this one is no longer its parent
PARENT = "SPARRING_SUPERVISOR"


def restart_delay_s(failures: int) -> float:
    """At once, then 5·2ⁿ seconds, at most 300."""
    return 0.0 if failures <= 1 else doubled_s(5.0, failures - 2, 300.0)


def forsaken() -> bool:
    """Whether the supervisor that started this process is gone: nobody would restart or stop it any more."""
    parent = os.environ.get(PARENT, "")
    return parent.isdigit() and os.getppid() != int(parent)


@dataclass
class Child:
    """One supervised process."""

    name: str
    argv: Sequence[str]
    log_file: Path
    env: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    failures: list[float] = field(default_factory=list)
    due: float = 0.0
    wanted: bool = True

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.running else None

    def start(self) -> None:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                list(self.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.env, PARENT: str(os.getpid())},
                # Ctrl-C reaches the supervisor alone: it decides who stops first
                start_new_session=True,
            )


class Supervisor:
    """Starts, watches and stops children; `look` is called often by whoever owns the loop."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.children: list[Child] = []
        self.alarms: dict[str, str] = {}
        self._say, self._clock = say, clock

    def add(self, child: Child) -> None:
        self.children.append(child)
        child.start()

    def look(self) -> None:
        """Restarts what ended and is due."""
        now = self._clock()
        for child in self.children:
            if not child.wanted or child.running:
                continue
            if child.process is not None:
                self._note_end(child, now)
            if now >= child.due:
                child.start()

    def _note_end(self, child: Child, now: float) -> None:
        assert child.process is not None
        code = child.process.returncode
        child.process = None
        child.failures = [then for then in child.failures if now - then < FORGOTTEN_S] + [now]
        count = len(child.failures)
        child.due = now + restart_delay_s(count)
        self._say(f"{child.name} ended with {code}; started again in {child.due - now:.0f} s (see {child.log_file})")
        if count >= ALARM_AFTER:
            self.alarms[child.name] = f"{child.name} ended {count} times within an hour; see {child.log_file}"

    def stop(self, names: Sequence[str] | None = None, within_s: float = 25.0) -> None:
        """Asks to end by SIGTERM, waits, then kills the process group."""
        chosen = [child for child in self.children if names is None or child.name in names]
        for child in chosen:
            child.wanted = False
            if child.running and child.process is not None:
                child.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + within_s
        for child in chosen:
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._say(f"{child.name} did not end within {within_s:.0f} s; killed")
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait()
