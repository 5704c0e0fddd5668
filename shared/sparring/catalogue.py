"""The services that are installed, found by entry points: the kernel imports none of them."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from sparring.read_model import ReadModel
from sparring.service import Service


@cache
def services() -> tuple[Service, ...]:
    """Every installed service, by name."""
    found = [entry.load() for entry in entry_points(group="sparring.services")]
    return tuple(sorted(found, key=lambda service: str(service.name)))


def read_models() -> tuple[ReadModel, ...]:
    """The read models of all installed services: what a reader folds."""
    return tuple(model for service in services() for model in service.read_models)
