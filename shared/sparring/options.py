"""How a process is told where its server and its data are."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparring.errors import BadInput


@dataclass(frozen=True)
class Options:
    """From the command line, else from the shared variables, else defaults."""

    nats: tuple[str, ...]
    creds: str
    data: Path
    replica: str
    http: int
    http_host: str
    artifacts: str
    replicas: int
    config: Path | None


def parse_options(service: str, argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> Options:
    """Raises BadInput for a value that makes no sense; `--help` prints what there is and exits."""
    parser = argparse.ArgumentParser(prog=service, description=f"Sparring's service {service}.")
    url = environ.get("SPARRING_NATS_URL", "nats://127.0.0.1:4222")
    parser.add_argument("--nats", default=url, help="servers, comma-separated (SPARRING_NATS_URL)")
    parser.add_argument("--creds", default=environ.get("SPARRING_CREDS", ""), help="credentials file (SPARRING_CREDS)")
    parser.add_argument("--data", default=environ.get("SPARRING_DATA", ".sparring"), help="folder (SPARRING_DATA)")
    parser.add_argument("--replica", default=environ.get("SPARRING_REPLICA", "0"), help="this replica's name")
    parser.add_argument("--http", default=environ.get("SPARRING_HTTP", "0"), help="port of /live and /ready, 0: none")
    parser.add_argument("--http-host", default=environ.get("SPARRING_HTTP_HOST", "127.0.0.1"))
    artifacts = environ.get("SPARRING_ARTIFACTS", "nats://ARTIFACTS")
    parser.add_argument("--artifacts", default=artifacts, help="home of artifacts (SPARRING_ARTIFACTS)")
    parser.add_argument("--replicas", default=environ.get("SPARRING_REPLICAS", "1"), help="replicas of each stream")
    parser.add_argument("--config", default=environ.get("SPARRING_CONFIG"), help="TOML file (SPARRING_CONFIG)")
    found = parser.parse_args(argv)
    return Options(
        nats=tuple(one.strip() for one in found.nats.split(",") if one.strip()),
        creds=found.creds,
        data=Path(found.data),
        replica=found.replica,
        http=_number("--http", found.http),
        http_host=found.http_host,
        artifacts=found.artifacts,
        replicas=_number("--replicas", found.replicas),
        config=Path(found.config) if found.config else None,
    )


def _number(name: str, text: str) -> int:
    if not text.isdigit():
        raise BadInput(f"{name} = {text!r} is no number; give digits only")
    return int(text)
