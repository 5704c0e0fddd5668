"""The services that are installed, found by entry points: the kernel imports none of them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from sparring.decider import Decider
from sparring.read_model import ReadModel
from sparring.service import Service, settings_decider


@cache
def services() -> tuple[Service, ...]:
    """Every installed service, by name."""
    found = [entry.load() for entry in entry_points(group="sparring.services")]
    return tuple(sorted(found, key=lambda service: str(service.name)))


def read_models() -> tuple[ReadModel, ...]:
    """The read models of all installed services: what a reader folds."""
    return tuple(model for service in services() for model in service.read_models)


@cache
def deciders() -> Mapping[tuple[str, str], Decider[Any]]:
    """How every kind of entity is folded, by (owner, entity): the deciders in the services' cores, and the settings'."""
    found = {(service.name, "settings"): settings_decider(service.name) for service in services()}
    for service in services():
        core = importlib.import_module(f"{service.package}.core")
        for info in pkgutil.iter_modules(core.__path__, f"{core.__name__}."):
            for one in vars(importlib.import_module(info.name)).values():
                if isinstance(one, Decider) and one.owner == service.name:
                    found[one.owner, one.entity] = one
    return found
