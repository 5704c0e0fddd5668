"""Where a message lives: subjects are computed from classes and ids, never written by hand."""

from __future__ import annotations

import base64
import re
from typing import NamedTuple

from sparring.contracts.base import FACTS, ORDERS, Fact, Message, Order

# an entity's state, carried forward by its owner: no fact of a contract
CARRIED = "StateCarried"
_PLAIN = re.compile(r"^[A-Za-z0-9_-]+$")


class Ref(NamedTuple):
    """One entity: its owner, its kind and its id."""

    owner: str
    entity: str
    id: str

    @property
    def pattern(self) -> str:
        """The one canonical pattern over which every append of this entity expects a sequence."""
        return f"evt.{self.owner}.{self.entity}.{token(self.id)}.>"

    def subject(self, name: str) -> str:
        return f"evt.{self.owner}.{self.entity}.{token(self.id)}.{name}"


def token(text: str) -> str:
    """The id as one subject token; what is not `[A-Za-z0-9_-]` becomes `x-` and base 32. Reversed by `untoken`."""
    if _PLAIN.match(text) and not text.startswith("x-"):
        return text
    return "x-" + base64.b32encode(text.encode()).decode().rstrip("=").lower()


def untoken(part: str) -> str:
    if not part.startswith("x-"):
        return part
    body = part[2:].upper()
    return base64.b32decode(body + "=" * (-len(body) % 8)).decode()


def ref_of(message: Message) -> Ref:
    return Ref(message.owner, message.entity, message.id)


def subject_of(message: Message) -> str:
    """`evt.<owner>.<entity>.<id>.<Name>` of a fact, `cmd.…` of an order."""
    kind = "evt" if isinstance(message, Fact) else "cmd"
    return f"{kind}.{message.owner}.{message.entity}.{token(message.id)}.{type(message).__name__}"


def filter_of(cls: type[Message]) -> str:
    """The subject filter that hears every message of the class."""
    kind = "evt" if issubclass(cls, Fact) else "cmd"
    return f"{kind}.{cls.owner}.{cls.entity}.*.{cls.__name__}"


def class_of(subject: str) -> type[Fact] | type[Order] | None:
    """The class whose messages travel on the subject, or None when no contract matches."""
    parts = subject.split(".")
    if len(parts) != 5:
        return None
    kind, owner, entity, _, name = parts
    book = FACTS if kind == "evt" else ORDERS
    return book.get((owner, entity, name))


def retry_subject(durable: str, original: str) -> str:
    """Reaches only the twin of the durable that failed."""
    return f"retry.{durable}.{original}"


def without_retry(subject: str) -> str:
    """The original subject of a message that came through a twin."""
    if not subject.startswith("retry."):
        return subject
    return subject.split(".", 2)[2]
