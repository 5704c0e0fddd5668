"""Settings from a TOML file and the environment; every value knows where it came from."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from sparring.errors import BadInput
from sparring.service import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)


@dataclass(frozen=True)
class Origin:
    """Where a value was read: `default`, a file, or an environment variable."""

    value: Any
    source: str


def prefix_of(service: str) -> str:
    return f"SPARRING_{service.upper().replace('-', '_')}__"


def read_settings(
    kind: type[S], service: str, *, environ: Mapping[str, str] = os.environ, file: Path | None = None
) -> tuple[S, dict[str, Origin]]:
    """The settings of a service and the origin of each. Raises BadInput naming field, value and remedy.

    The environment wins over the file named by SPARRING_CONFIG, the file over the defaults.
    """
    path = file or (Path(environ["SPARRING_CONFIG"]) if environ.get("SPARRING_CONFIG") else None)
    found: dict[str, Origin] = {}
    for name, value in _from_file(path, service).items():
        found[name] = Origin(value, str(path))
    prefix = prefix_of(service)
    for variable, value in environ.items():
        if variable.startswith(prefix):
            found[variable[len(prefix) :].lower()] = Origin(value, variable)
    try:
        settings = kind.model_validate({name: one.value for name, one in found.items()})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        source = found[name].source if name in found else "defaults"
        raise BadInput(
            f"{service}.{name} = {first['input']!r} ({source}): {first['msg']}; "
            f"known fields: {', '.join(sorted(kind.model_fields))}"
        ) from error
    origins = {name: found.get(name, Origin(getattr(settings, name), "default")) for name in kind.model_fields}
    return settings, {name: Origin(getattr(settings, name), one.source) for name, one in origins.items()}


def _from_file(path: Path | None, service: str) -> Mapping[str, Any]:
    if path is None:
        return {}
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise BadInput(f"SPARRING_CONFIG = {path}: {error.strerror}; name a readable TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path} is not TOML: {error}") from error
    section = data.get(service, {})
    if not isinstance(section, dict):
        raise BadInput(f"{path}: [{service}] must be a table")
    return section
