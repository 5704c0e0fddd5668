"""Which cluster a command means: the server named by `--nats`, else the one that a data folder remembers."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from sparring.errors import BadInput
from sparring.server import alive

FILE = "server.json"
DEFAULT_DATA = ".sparring"


SLICES = (".ndjson", ".parquet")


@dataclass(frozen=True)
class Place:
    """A running server, or the file of a slice of a log."""

    url: str
    data: str = ""
    creds: str = ""

    @property
    def slice(self) -> Path | None:
        return Path(self.data) if not self.url else None


def cache_folder() -> Path:
    """Where this user keeps what can be had again."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "sparring"


def remember(data: Path, url: str, monitoring: str, pid: int) -> None:
    """Writes down where the server of this folder listens."""
    draft = data / (FILE + ".tmp")
    draft.write_text(json.dumps({"url": url, "monitoring": monitoring, "pid": pid}))
    os.replace(draft, data / FILE)


def recall(data: Path) -> dict[str, str] | None:
    try:
        known = json.loads((data / FILE).read_text())
    except (OSError, ValueError):
        return None
    return {name: str(value) for name, value in known.items()} if isinstance(known, dict) else None


def find(nats: str | None, data: str | None, creds: str = "") -> Place:
    """Raises BadInput when no server is known or none answers."""
    creds = creds or os.environ.get("SPARRING_CREDS", "")
    url = nats or (None if data else os.environ.get("SPARRING_NATS_URL"))
    if url:
        return Place(url, data or "", creds)
    if data and data.endswith(SLICES):
        if not Path(data).is_file():
            raise BadInput(f"--data {data}: there is no such file; `spar export FILE` writes one")
        return Place("", data)
    folder = Path(data or os.environ.get("SPARRING_DATA") or DEFAULT_DATA)
    known = recall(folder)
    if known is None:
        raise BadInput(
            f"--data {folder}: no cluster ran here yet; start one with `spar up`, or name a server: --nats URL"
        )
    if not alive(known["url"]):
        raise BadInput(f"--data {folder}: its server at {known['url']} does not answer; start it with `spar up`")
    return Place(known["url"], str(folder), creds)
