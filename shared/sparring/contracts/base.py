"""What a message is: a class from which its subject, its schema and its place in the catalogue are computed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 in lower-case hex")]
Name = Annotated[str, Field(min_length=1, max_length=120)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Instant = AwareDatetime
Json = dict[str, Any]


class Message(BaseModel):
    """A frozen record on the wire; `owner` decides, `entity` and the field named by `key` say about what."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    owner: ClassVar[str] = ""
    entity: ClassVar[str] = ""
    key: ClassVar[str] = ""
    version: ClassVar[int] = 1

    def __init_subclass__(cls, *, owner: str = "", entity: str = "", key: str = "", version: int = 1, **_: Any) -> None:
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(
        cls, *, owner: str = "", entity: str = "", key: str = "", version: int = 1, **kwargs: Any
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not owner:
            return
        cls.owner, cls.entity, cls.key, cls.version = owner, entity, key, version
        if key not in cls.model_fields:
            raise TypeError(f"{cls.__name__}: key {key!r} is not a field of it")
        _register(cls)

    @property
    def id(self) -> str:
        """The id of the entity that this message is about, as written by people."""
        return str(getattr(self, self.key))

    @classmethod
    def schema_name(cls) -> str:
        return f"{cls.owner}/{cls.__name__}.v{cls.version}"


class Fact(Message):
    """Something that happened; only its owner appends it."""


class Order(Message):
    """What somebody wants of the owner; it may be refused, which is a fact."""


class Part(BaseModel):
    """A frozen value inside messages."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


M = TypeVar("M", bound=Message)
FACTS: dict[tuple[str, str, str], type[Fact]] = {}
ORDERS: dict[tuple[str, str, str], type[Order]] = {}
_registered = 0


def registrations() -> int:
    """How many messages were registered so far: what is computed over all of them holds until it rises."""
    return _registered


def _register(cls: type[Message]) -> None:
    global _registered
    _registered += 1
    place = (cls.owner, cls.entity, cls.__name__)
    book: dict[tuple[str, str, str], Any] = FACTS if issubclass(cls, Fact) else ORDERS
    known = book.get(place)
    if known is not None and known.version >= cls.version and known.__module__ != cls.__module__:
        raise TypeError(f"two classes for {'.'.join(place)}")
    book[place] = cls


__all__ = [
    "FACTS",
    "ORDERS",
    "Annotated",
    "Count",
    "Fact",
    "Field",
    "Instant",
    "Json",
    "Message",
    "Name",
    "Order",
    "Part",
    "Seconds",
    "Sha256",
    "datetime",
    "registrations",
]
