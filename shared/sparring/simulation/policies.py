"""Policies by name: a service's other settings, or one pure function of its core replaced; services offer them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from sparring.errors import BadInput

GROUP = "sparring.policies"


@dataclass(frozen=True)
class Policy:
    """`settings` by service; `replaces` are (module, name of a function in it, the function in its place)."""

    name: str
    text: str
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    replaces: tuple[tuple[Any, str, Callable[..., Any]], ...] = ()

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """The functions are replaced while the block runs; settings go into the setup."""
        before = [(module, name, getattr(module, name)) for module, name, _ in self.replaces]
        for module, name, function in self.replaces:
            setattr(module, name, function)
        try:
            yield
        finally:
            for module, name, function in before:
                setattr(module, name, function)


DEFAULT = Policy("default", "what production does")


@cache
def policies() -> Mapping[str, Policy]:
    """Every policy that an installed service offers, by name."""
    offered = [one for entry in entry_points(group=GROUP) for one in entry.load()]
    return {DEFAULT.name: DEFAULT} | {one.name: one for one in offered}


def policy(name: str) -> Policy:
    """Raises BadInput naming those that there are."""
    found = policies().get(name)
    if found is None:
        raise BadInput(f"--policy {name}: there is no such policy; there are {', '.join(sorted(policies()))}")
    return found
