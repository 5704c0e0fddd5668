"""How an agent is told what it is: options, else `SPARRING_NODE_AGENT__<FIELD>`, else defaults. Times in seconds."""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import socket
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sparring.errors import BadInput
from sparring.settings import prefix_of


def machine_id() -> str:
    """Agents of one machine share one budget: a hash of what stays the same on it."""
    known = Path("/etc/machine-id")
    text = known.read_text().strip() if known.exists() else f"{platform.node()}-{uuid.getnode()}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class AgentSettings(BaseModel):
    """Everything that an agent can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nats: str = "nats://127.0.0.1:4222"
    creds: str = ""
    node: str = Field(default_factory=lambda: socket.gethostname().split(".")[0])
    data: Path = Path(".sparring/node")
    tags: tuple[str, ...] = ()
    ephemeral: bool = False
    kinds: tuple[str, ...] = ()
    seats: int | None = Field(default=None, ge=1)
    machine: str = Field(default_factory=machine_id)
    artifacts: str = "nats://ARTIFACTS"
    cache_bytes: int = Field(default=20 * 1024**3, gt=0)
    cgroup: Path | None = None
    cores_per_task: int = Field(default=0, ge=0)
    uplink_bytes_per_s: int = Field(default=12_500_000, gt=0)
    nice: int = Field(default=10, ge=0, le=19)
    grace_s: float = Field(default=60.0, ge=0)
    beat_s: float = Field(default=5.0, gt=0)
    renew_s: float = Field(default=30.0, gt=0)
    slot_lease_s: float = Field(default=90.0, gt=0)
    notice_file: Path | None = None
    http: int = 0
    http_host: str = "127.0.0.1"

    @model_validator(mode="after")
    def _lease_outlasts_renewals(self) -> Self:
        if self.slot_lease_s <= 2 * self.renew_s:
            raise ValueError(f"slot_lease_s = {self.slot_lease_s} must be above twice renew_s = {self.renew_s}")
        return self


SHARED = {"nats": "SPARRING_NATS_URL", "creds": "SPARRING_CREDS", "data": "SPARRING_DATA",
          "artifacts": "SPARRING_ARTIFACTS", "http": "SPARRING_HTTP", "http_host": "SPARRING_HTTP_HOST"}  # fmt: skip
LISTS = ("tags", "kinds")


def parse(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> AgentSettings:
    """Raises BadInput naming field, value and remedy."""
    parser = argparse.ArgumentParser(prog="spar agent", description="This machine becomes a node.")
    for name, field in AgentSettings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            parser.add_argument(flag, action="store_true", default=None)
        else:
            parser.add_argument(flag, default=None)
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    prefix = prefix_of("node-agent")
    own = {key[len(prefix) :].lower(): value for key, value in environ.items() if key.startswith(prefix)}
    shared = {name: environ[key] for name, key in SHARED.items() if environ.get(key)}
    values: dict[str, object] = {**shared, **own, **given}
    for name in LISTS:
        if isinstance(values.get(name), str):
            values[name] = tuple(one.strip() for one in str(values[name]).split(",") if one.strip())
    try:
        return AgentSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise BadInput(f"{first['msg'].removeprefix('Value error, ')}; change one of them") from error
        field_name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(AgentSettings.model_fields)
        raise BadInput(f"{field_name} = {first['input']!r}: {first['msg']}; known fields: {known}") from error
