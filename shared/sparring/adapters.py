"""How states and pictures become JSON and come back."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

_MADE: dict[Any, TypeAdapter[Any]] = {}


def adapter_for(kind: Any) -> TypeAdapter[Any]:
    """Made once for each kind, which takes longer than most states and pictures take to be written."""
    if kind not in _MADE:
        _MADE[kind] = TypeAdapter(kind)
    return _MADE[kind]
