"""What planners' pictures share: everything they know is one value, which goes to JSON and comes back."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

from sparring.adapters import adapter_for

T = TypeVar("T")


class StoredPicture(Generic[T]):
    """A picture whose whole knowledge is `all`; a subclass names its type in `kind` and adds `apply`."""

    kind: ClassVar[type[Any]]

    def __init__(self) -> None:
        self.all: T = self.kind()

    def dump(self) -> Any:
        return adapter_for(self.kind).dump_python(self.all, mode="json")

    def text(self) -> str:
        return adapter_for(self.kind).dump_json(self.all).decode()

    def load(self, data: Any) -> None:
        self.all = adapter_for(self.kind).validate_python(data)
