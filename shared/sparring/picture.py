"""What planners' pictures share: everything they know is one value, which goes to JSON and comes back."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")


class StoredPicture(Generic[T]):
    """A picture whose whole knowledge is `all`; a subclass names its type in `kind` and adds `apply`."""

    kind: ClassVar[type[Any]]

    def __init__(self) -> None:
        self.all: T = self.kind()

    def dump(self) -> Any:
        return TypeAdapter(self.kind).dump_python(self.all, mode="json")

    def load(self, data: Any) -> None:
        self.all = TypeAdapter(self.kind).validate_python(data)
