"""How a message travels: CloudEvents' binary mode in headers, JSON that a person can read as the body."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from pydantic import ValidationError

from sparring.contracts.base import Fact, Message, Order
from sparring.contracts.upcasts import upcast
from sparring.decider import Recorded
from sparring.errors import Expired, NewerVersion, TooLarge, Undecodable, UnknownMessage
from sparring.streams import MAX_PAYLOAD
from sparring.subjects import class_of, subject_of, without_retry

NAMESPACE = uuid.UUID("8a1f6f0e-4a52-5d0c-9c0e-5b6f0a2d7f11")
# a message's headers count, too
MOST_BYTES = MAX_PAYLOAD - 64 * 1024
ORDER, CAUSE, CORRELATION, EXPIRES = "Sparring-Order", "Sparring-Cause", "Sparring-Correlation", "Sparring-Expires"
_SCHEMA = re.compile(r"^(?P<name>.+)\.v(?P<version>\d+)$")


@dataclass(frozen=True, slots=True)
class Envelope:
    """What stands around a message: who said it, when, why, and which trace it belongs to."""

    id: str
    source: str
    at: datetime
    order: str = ""
    cause: str = ""
    correlation: str = ""
    traceparent: str = ""
    expires_at: datetime | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def derived_id(*parts: str) -> str:
    """The same parts give the same id: asked twice, done once. A UUID of version 5 (RFC 9562); the library's own takes
    several times as long, and every fact and order has one."""
    name = NAMESPACE.bytes + "\x1f".join(parts).encode()
    digits = hashlib.sha1(name, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digits[16], 16) % 4]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def headers_of(message: Message, envelope: Envelope) -> dict[str, str]:
    """CloudEvents attributes, trace context, the causing message and the lane iteration."""
    headers = {
        "ce-specversion": "1.0",
        "ce-id": envelope.id,
        "ce-type": type(message).__name__,
        "ce-source": envelope.source,
        "ce-time": envelope.at.isoformat(),
        "ce-subject": message.id,
        "ce-dataschema": _schema_of(type(message)),
        "Content-Type": "application/json",
        "Nats-Msg-Id": envelope.id,
    }
    if envelope.order:
        headers[ORDER] = envelope.order
    if envelope.cause:
        headers[CAUSE] = envelope.cause
    if envelope.correlation:
        headers[CORRELATION] = envelope.correlation
    if envelope.traceparent:
        headers["traceparent"] = envelope.traceparent
    if envelope.expires_at:
        headers[EXPIRES] = envelope.expires_at.isoformat()
    return headers


def encode(message: Message, envelope: Envelope) -> tuple[str, dict[str, str], bytes]:
    """Subject, headers and body. Raises TooLarge before anything is sent."""
    subject, body = subject_of(message), message.model_dump_json().encode()
    if len(body) > MOST_BYTES:
        raise TooLarge(
            f"{subject} has {len(body):,} bytes, a message may have {MOST_BYTES:,}: files belong into the artifact store"
        )
    return subject, headers_of(message, envelope), body


def encode_order(
    order: Order,
    id: str,
    *,
    now: datetime,
    source: str,
    cause: str = "",
    correlation: str = "",
    traceparent: str = "",
    expires_s: float | None = None,
) -> tuple[str, dict[str, str], bytes]:
    """An order as it is published to COMMANDS. `expires_s` is a duration: the owner refuses it afterwards."""
    until = now + timedelta(seconds=expires_s) if expires_s is not None else None
    return encode(order, Envelope(id, source, now, "", cause, correlation, traceparent, until))


def read_envelope(headers: Mapping[str, str], arrived_at: datetime) -> Envelope:
    """The envelope of a message from the wire; a message without `ce-time` counts from its arrival."""
    stamp, expires = headers.get("ce-time"), headers.get(EXPIRES)
    return Envelope(
        id=headers.get("ce-id", ""),
        source=headers.get("ce-source", ""),
        at=datetime.fromisoformat(stamp) if stamp else arrived_at,
        order=headers.get(ORDER, ""),
        cause=headers.get(CAUSE, ""),
        correlation=headers.get(CORRELATION, ""),
        traceparent=headers.get("traceparent", ""),
        expires_at=datetime.fromisoformat(expires) if expires else None,
        headers=headers,
    )


def foreign(subject: str, headers: Mapping[str, str]) -> bool:
    """Whether somebody published past the kernel: no build ever wrote a fact without these headers, so none folds it.

    Users' own facts, `evt.ext-…`, are theirs.
    """
    return "ce-type" not in headers and "ce-id" not in headers and not subject.startswith("evt.ext-")


def decode(subject: str, headers: Mapping[str, str], body: bytes) -> Message:
    """The message on the wire, upcast to the version that this build knows.

    Raises UnknownMessage, NewerVersion or Undecodable; all of them are permanent.
    """
    cls = class_of(without_retry(subject))
    if cls is None:
        raise UnknownMessage(f"no contract matches {subject}")
    if headers.get("ce-dataschema") != _schema_of(cls):
        body = _newest(cls, subject, headers, body)
    try:
        return cls.model_validate_json(body)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise Undecodable(f"{subject}: the body is not JSON: {error.errors()[0]['msg']}") from error
        unknown = [str(one["loc"][-1]) for one in error.errors() if one["type"] == "extra_forbidden"]
        if len(unknown) == error.error_count() and "ce-dataschema" in headers:
            # an optional field keeps the version: who does not know it is older than the producer
            raise NewerVersion(
                f"{cls.__name__} has {', '.join(unknown)}, which this build does not know; upgrade, then redrive"
            ) from error
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise Undecodable(f"{cls.__name__}.{where}: {first['msg']} (got {str(first['input'])[:80]!r})") from error


@cache
def _schema_of(cls: type[Message]) -> str:
    return cls.schema_name()


def _newest(cls: type[Message], subject: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """The body as the newest version has it. Raises Undecodable, NewerVersion."""
    try:
        data = json.loads(body)
    except ValueError as error:
        raise Undecodable(f"{subject}: the body is not JSON: {error}") from error
    return json.dumps(current(cls, headers, data)).encode()


def current(cls: type[Message], headers: Mapping[str, str], data: dict[str, Any]) -> dict[str, Any]:
    """The body's data in the newest version. Raises NewerVersion when the producer is ahead of this build."""
    match = _SCHEMA.match(headers.get("ce-dataschema", ""))
    version = int(match["version"]) if match else cls.version
    if version > cls.version:
        raise NewerVersion(f"{cls.__name__} v{version} arrived, this build knows v{cls.version}; upgrade, then redrive")
    return upcast(cls, version, data) if version < cls.version else data


def recorded(sequence: int, subject: str, headers: Mapping[str, str], body: bytes, stored_at: datetime) -> Recorded:
    """A fact as folds see it."""
    fact = decode(subject, headers, body)
    if not isinstance(fact, Fact):
        raise Undecodable(f"{subject} holds no fact")
    envelope = read_envelope(headers, stored_at)
    return Recorded(
        sequence=sequence,
        at=envelope.at,
        fact=fact,
        id=envelope.id,
        order=envelope.order,
        cause=envelope.cause,
        correlation=envelope.correlation,
        traceparent=envelope.traceparent,
    )


def check_expiry(envelope: Envelope, now: datetime) -> None:
    """Raises Expired when the order's time is over."""
    if envelope.expires_at is not None and now > envelope.expires_at:
        raise Expired(
            f"the order expired at {envelope.expires_at.isoformat()}; send a new one, or redrive with --force"
        )
