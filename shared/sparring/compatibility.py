"""What may change in a message of one version: it may gain optional fields and values of an enumeration, nothing else.

Older messages are in the log for ever, and older builds run beside newer ones: any other change is a new version and an
upcast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sparring.contracts.base import Message
from sparring.contracts.upcasts import UPCASTS

Schema = Mapping[str, Any]
# words for people
IGNORED = {"title", "description", "examples", "$id", "$defs"}
REMEDY = "raise the message's version and add an upcast to sparring/contracts/upcasts.py"


def incompatible(frozen: Schema, now: Schema) -> list[str]:
    """What the schema of the same version may not do, each with the field's path and the remedy; [] when all is well."""
    return [f"{where or 'message'}: {what}; {REMEDY}" for where, what in _objects(frozen, now, frozen, now, "", ())]


def _resolved(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        name = str(schema["$ref"]).rsplit("/", 1)[-1]
        schema = {**root["$defs"][name], **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def _objects(
    old: Schema, new: Schema, old_root: Schema, new_root: Schema, where: str, seen: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    name = str(old.get("$ref", ""))
    if name and name in seen:
        return
    seen = (*seen, name) if name else seen
    old, new = _resolved(old, old_root), _resolved(new, new_root)
    yield from _enums(old, new, where)
    fields, fields_now = old.get("properties", {}), new.get("properties", {})
    for field in fields:
        path = f"{where}.{field}" if where else field
        if field not in fields_now:
            yield path, "was removed or renamed"
            continue
        yield from _objects(fields[field], fields_now[field], old_root, new_root, path, seen)
    yield from _required(old, new, where)
    for key in ("items", "additionalProperties"):
        if isinstance(old.get(key), Mapping) and isinstance(new.get(key), Mapping):
            yield from _objects(old[key], new[key], old_root, new_root, f"{where}[]", seen)
        elif old.get(key) != new.get(key):
            yield where, f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
    yield from _choices(old, new, old_root, new_root, where, seen)
    checked = IGNORED | {"properties", "required", "items", "additionalProperties", "anyOf", "oneOf", "prefixItems",
                         "enum", "const", "discriminator"}  # fmt: skip
    for key in sorted((old.keys() | new.keys()) - checked):
        if old.get(key) != new.get(key):
            yield where, f"{key} was {old.get(key)!r}, is {new.get(key)!r}"


def _enums(old: Schema, new: Schema, where: str) -> Iterator[tuple[str, str]]:
    before, after = _values(old), _values(new)
    if (before is None) != (after is None):
        yield where, "an enumeration began or ended"
    elif before is not None and after is not None:
        for value in before:
            if value not in after:
                yield where, f"the value {value!r} was removed"


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if "enum" in schema else None


def _required(old: Schema, new: Schema, where: str) -> Iterator[tuple[str, str]]:
    before, after = set(old.get("required", ())), set(new.get("required", ()))
    for field in sorted(after - before):
        path = f"{where}.{field}" if where else field
        yield path, "became required" if field in old.get("properties", {}) else "is new and has no default"
    for field in sorted(before - after):
        if field in new.get("properties", {}):
            yield (f"{where}.{field}" if where else field), "became optional, which older builds refuse"


def _choices(
    old: Schema, new: Schema, old_root: Schema, new_root: Schema, where: str, seen: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    for key in ("anyOf", "oneOf", "prefixItems"):
        before, after = old.get(key, ()), new.get(key, ())
        if len(before) != len(after):
            yield where, f"{key} had {len(before)} types, has {len(after)}"
            continue
        for one, other in zip(before, after, strict=True):
            yield from _objects(one, other, old_root, new_root, where, seen)


def missing_upcasts(cls: type[Message]) -> list[str]:
    """The steps from version 1 to the class's own that nobody wrote."""
    name = f"{cls.owner}/{cls.__name__}"
    return [
        f"{name}: no upcast from v{step} to v{step + 1}; add it to sparring/contracts/upcasts.py"
        for step in range(1, cls.version)
        if (name, step) not in UPCASTS
    ]
