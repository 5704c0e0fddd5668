"""Older versions of messages, brought to the newest one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparring.contracts.base import Message

Upcast = Callable[[dict[str, Any]], dict[str, Any]]

# (schema name without version, from version) -> the same data one version on
UPCASTS: dict[tuple[str, int], Upcast] = {}


def upcast(cls: type[Message], version: int, data: dict[str, Any]) -> dict[str, Any]:
    """The data in the newest version. Raises KeyError when a step is missing, which CI refuses."""
    name = f"{cls.owner}/{cls.__name__}"
    for step in range(version, cls.version):
        data = UPCASTS[name, step](data)
    return data
