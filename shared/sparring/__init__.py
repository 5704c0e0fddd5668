"""The kernel and the SDK of Sparring: one log, folds over it, and services that only append facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparring.client import Client, connect
    from sparring.local import local_cluster

__version__ = "0.1.0"
__all__ = ["Client", "connect", "local_cluster"]
_HOMES = {"Client": "sparring.client", "connect": "sparring.client", "local_cluster": "sparring.local"}


def __getattr__(name: str) -> Any:
    """`sparring.connect`, `sparring.Client` and `sparring.local_cluster`, loaded when they are used: services need none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
