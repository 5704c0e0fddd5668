"""What planners' pictures share: everything they know is one value, which goes to JSON and comes back."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")
_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


class StoredPicture(Generic[T]):
    """A picture whose whole knowledge is `all`; a subclass names its type in `kind` and adds `apply`."""

    kind: ClassVar[type[Any]]

    def __init__(self) -> None:
        self.all: T = self.kind()

    def dump(self) -> Any:
        return adapter_of(self.kind).dump_python(self.all, mode="json")

    def text(self) -> str:
        return adapter_of(self.kind).dump_json(self.all).decode()

    def load(self, data: Any) -> None:
        self.all = adapter_of(self.kind).validate_python(data)


def adapter_of(kind: type[Any]) -> TypeAdapter[Any]:
    """Made once for each kind, which takes longer than most pictures take to be written."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]
