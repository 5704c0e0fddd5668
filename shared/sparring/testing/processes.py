"""Services as real processes that start fast and can be killed: forked from a server that has imported everything."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from multiprocessing.popen_forkserver import Popen
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

from sparring.faults import Point


@cache
def _preloaded() -> None:
    multiprocessing.get_context("forkserver").set_forkserver_preload(["sparring.testing.preload"])


class _Watched(Popen):
    """How a process ended can be read once; every start of another one reads it for all, in whatever thread that happens.

    Without the lock the second of two readers at once finds nothing, and overwrites the signal with an exit code of 255.
    """

    _reading = threading.Lock()

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if flag != os.WNOHANG:
            wait([self.sentinel])
        with self._reading:
            return super().poll()


class Forked(ForkServerProcess):
    """A process of the fork server, whose end any thread may ask for."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Popen:
        return _Watched(process_obj)


def _begin(log_file: str) -> None:
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _loaded(module: str) -> ModuleType:
    """An installed module by its name, a test's own file by its path."""
    if not module.endswith(".py"):
        return importlib.import_module(module)
    spec = importlib.util.spec_from_file_location(Path(module).stem, module)
    assert spec is not None and spec.loader is not None
    found = sys.modules[Path(module).stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def _serve(where: str, argv: Sequence[str], fault: str, environ: Mapping[str, str], log_file: str) -> None:
    _begin(log_file)
    os.environ.update(environ)
    from sparring import faults
    from sparring.shell import run

    faults.arm(fault)
    module, _, name = where.partition(":")
    run(getattr(_loaded(module), name), list(argv))


def _call(file: str, function: str, arguments: Sequence[object], log_file: str) -> None:
    _begin(log_file)
    asyncio.run(getattr(_loaded(file), function)(*arguments))


def call(file: Path, function: str, *arguments: object, log: Path) -> Forked:
    """Runs the coroutine function of a test's file in a process of its own, which can be killed."""
    _preloaded()
    process = Forked(target=_call, args=(str(file), function, arguments, str(log)), daemon=True)
    process.start()
    return process


@dataclass
class Replica:
    """One process of one service. `where` is `module:SERVICE` or `file.py:SERVICE`; its files lie under `data`."""

    where: str
    url: str
    data: Path
    replica: str = "0"
    fault: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    process: Forked | None = None

    def start(self, fault: Point | str = "") -> Replica:
        self.data.mkdir(parents=True, exist_ok=True)
        argv = ["--nats", self.url, "--data", str(self.data), "--replica", self.replica]
        log = self.data / f"{Path(self.where).name.partition('.')[0]}-{self.replica}.log"
        arguments = (self.where, argv, fault, dict(self.environ), str(log))
        _preloaded()
        process = Forked(target=_serve, args=arguments, daemon=True)
        process.start()
        self.process = process
        return self

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.is_alive()

    def kill(self) -> None:
        """SIGKILL: nothing is said, nothing is saved."""
        if self.process is not None:
            self.process.kill()
            self.process.join(10)

    def stop(self) -> None:
        """SIGTERM, and its end; killed when it does not come."""
        if self.process is None:
            return
        self.process.terminate()
        self.process.join(25)
        if self.process.is_alive():
            self.kill()


def app_of(service: str) -> str:
    """`training-slots` → `training_slots.app:SERVICE`."""
    return f"{service.replace('-', '_')}.app:SERVICE"


@contextmanager
def running(*replicas: Replica) -> Iterator[None]:
    """Starts what does not run yet; all of them are gone afterwards."""
    for one in replicas:
        if not one.running:
            one.start()
    try:
        yield
    finally:
        for one in replicas:
            if one.running and one.process is not None:
                one.process.terminate()
        for one in replicas:
            one.stop()
