"""What all four programs do alike: job in, files and one result line out, and a timely end when asked to stop."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparring_hex.job import BadJob, Job, Refused, load_job

EXIT_BAD_JOB, EXIT_REFUSED = 2, 3
PROGRESS_EVERY_S = 1.0


@dataclass
class Desk:
    """Where a program works: its output folder, its progress lines, and whether it was asked to stop."""

    out: Path
    quiet: bool = False
    stopping: bool = False
    began: float = field(default_factory=time.monotonic)
    _spoke: float = 0.0

    def seconds(self) -> float:
        """Seconds since the program began."""
        return round(time.monotonic() - self.began, 3)

    def progress(self, done: int, of: int, now: bool = False, **more: Any) -> None:
        """Prints a progress line, at most one a second unless it has to be `now`."""
        moment = time.monotonic()
        if self.quiet or (moment - self._spoke < PROGRESS_EVERY_S and not now):
            return
        self._spoke = moment
        print(json.dumps({"progress": {"done": done, "of": of, **more}}), flush=True)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A temporary path that becomes `name` in the output folder, synced to disk, when the block ends well."""
        self.out.mkdir(parents=True, exist_ok=True)
        temporary, final = self.out / f".{name}.part", self.out / name
        temporary.unlink(missing_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, final)
        _sync(self.out)

    def made(self, name: str, role: str) -> dict[str, Any]:
        """How the result line names a file of the output folder."""
        path = self.out / name
        return {"name": name, "role": role, "sha256": sha256(path), "bytes": path.stat().st_size}


@dataclass(frozen=True)
class Outcome:
    """What a program has done: files as `Desk.made` names them, and the evidence."""

    files: Sequence[dict[str, Any]]
    evidence: dict[str, Any]


def sha256(path: Path) -> str:
    """A file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(kind: str, work: Callable[[Job, Desk], Outcome]) -> None:
    """The program of one kind: exits 0 with a result line, 2 on a bad job, 3 when it refuses."""
    parser = argparse.ArgumentParser(prog=f"python -m sparring_hex.{kind}", description=sys.modules["__main__"].__doc__)
    parser.add_argument("--job", type=Path, required=True, help="the job file (JSON)")
    parser.add_argument("--out", type=Path, required=True, help="the output folder")
    given = parser.parse_args()
    desk = Desk(given.out)

    def stop(*_: object) -> None:
        desk.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        outcome = work(load_job(given.job, kind), desk)
    except BadJob as error:
        print(f"bad job: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_JOB)
    except Refused as error:
        print(f"refused: {error}", file=sys.stderr)
        sys.exit(EXIT_REFUSED)
    print(json.dumps({"result": {"files": list(outcome.files), "evidence": outcome.evidence}}), flush=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
