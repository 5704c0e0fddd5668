"""The generated part of `schemas/`: JSON Schemas, AsyncAPI documents, frozen samples; written, or checked by CI.

`python -m sparring.schema_files write` writes what is missing or older; `check` fails when anything differs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparring.catalogue import services
from sparring.compatibility import incompatible, missing_upcasts
from sparring.contracts import FACTS, ORDERS
from sparring.contracts.base import Fact, Message
from sparring.contracts.upcasts import upcast
from sparring.service import Service
from sparring.subjects import filter_of

FOLDER = Path("schemas")


class Refused(Exception):
    """A message changed in a way that its version does not allow; each line names the field and the remedy."""


def messages() -> list[type[Message]]:
    """Every fact and order, in a stable order."""
    found: list[type[Message]] = [*FACTS.values(), *ORDERS.values()]
    return sorted(found, key=lambda cls: (cls.owner, cls.__name__))


def schema_of(cls: type[Message]) -> dict[str, Any]:
    """The message's JSON Schema, with where it travels."""
    kind = "fact" if issubclass(cls, Fact) else "order"
    return {"$id": cls.schema_name(), "x-kind": kind, "x-subject": filter_of(cls), **cls.model_json_schema()}


def asyncapi_of(service: Service) -> dict[str, Any]:
    """AsyncAPI 3.0: the orders that the service obeys, the facts that it alone says."""
    heard = [command.order for command in service.commands]
    said = [cls for cls in messages() if cls.owner == service.name and issubclass(cls, Fact)]
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for cls in [*heard, *said]:
        name, action = cls.__name__, "receive" if cls in heard else "send"
        channels[name] = {
            "address": filter_of(cls).replace("*", "{id}"),
            "parameters": {"id": {"description": f"the id of the {cls.entity}"}},
            "messages": {name: {"payload": {"$ref": f"./{cls.owner}/{name}.v{cls.version}.json"}}},
        }
        operations[f"{action}{name}"] = {"action": action, "channel": {"$ref": f"#/channels/{name}"}}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": service.name, "version": "1", "description": f"What {service.name} hears and says."},
        "channels": channels,
        "operations": operations,
    }


def _text(data: Any) -> str:
    return json.dumps(data, indent=2, sort_keys=False) + "\n"


def generated() -> Iterator[tuple[Path, str]]:
    """Path and text of everything that a change of the contracts changes."""
    import yaml

    for cls in messages():
        yield schema_path(cls), _text(schema_of(cls))
    for service in services():
        yield FOLDER / f"{service.name}.asyncapi.yaml", yaml.safe_dump(asyncapi_of(service), sort_keys=False)


def schema_path(cls: type[Message]) -> Path:
    return FOLDER / cls.owner / f"{cls.__name__}.v{cls.version}.json"


def sample_path(cls: type[Message]) -> Path:
    return FOLDER / "samples" / cls.owner / f"{cls.__name__}.v{cls.version}.json"


def _sample(cls: type[Message]) -> str:
    from polyfactory.factories.pydantic_factory import ModelFactory

    factory: Any = ModelFactory.create_factory(cls, __random_seed__=7, __use_defaults__=True)
    return _text(json.loads(factory.build().model_dump_json()))


def refusals() -> list[str]:
    """Changes that break the rule of schemas/README.md, against the files that are checked in."""
    wrong = []
    for cls in messages():
        path = schema_path(cls)
        if path.exists():
            found = incompatible(json.loads(path.read_text()), json.loads(_text(schema_of(cls))))
            wrong += [f"{cls.schema_name()}: {one}" for one in found]
        wrong += missing_upcasts(cls)
        newer = [version for version in _versions(cls) if version > cls.version]
        wrong += [f"{cls.schema_name()}: v{version} was committed; a version never goes down" for version in newer]
        missing = set(range(1, cls.version)) - set(_versions(cls))
        wrong += [
            f"{cls.schema_name()}: {FOLDER}/…/{cls.__name__}.v{gone}.json is gone; versions stay" for gone in missing
        ]
    return wrong


def _versions(cls: type[Message]) -> list[int]:
    return [int(path.stem.rpartition(".v")[2]) for path in (FOLDER / cls.owner).glob(f"{cls.__name__}.v*.json")]


def write() -> list[str]:
    """Writes what differs; a sample is written once and then frozen. Raises Refused, and writes nothing, for a change that
    breaks the rule."""
    wrong = refusals()
    if wrong:
        raise Refused("\n".join(wrong))
    changed = []
    for path, text in generated():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            changed.append(str(path))
    for cls in messages():
        if not sample_path(cls).exists():
            sample_path(cls).parent.mkdir(parents=True, exist_ok=True)
            sample_path(cls).write_text(_sample(cls))
            changed.append(str(sample_path(cls)))
    return changed


def check() -> list[str]:
    """What is wrong: files that are not current, samples that are missing, samples that no longer decode."""
    wrong = [f"{path} is not current" for path, text in generated() if not path.exists() or path.read_text() != text]
    wrong += [f"{sample_path(cls)} is missing" for cls in messages() if not sample_path(cls).exists()]
    return wrong + refusals() + undecodable()


def undecodable() -> list[str]:
    """Every sample ever committed must still decode, through upcasts where its version is older."""
    wrong = []
    by_name = {(cls.owner, cls.__name__): cls for cls in messages()}
    for path in sorted((FOLDER / "samples").glob("*/*.json")):
        name, _, version = path.stem.partition(".v")
        cls = by_name.get((path.parent.name, name))
        if cls is None:
            wrong.append(f"{path}: no contract of that name is left")
            continue
        try:
            cls.model_validate_json(json.dumps(upcast(cls, int(version), json.loads(path.read_text()))))
        except (ValueError, KeyError) as error:
            wrong.append(f"{path} no longer decodes: {error}")
    return wrong


def main() -> None:
    if sys.argv[1:] == ["write"]:
        try:
            for path in write():
                print(path)
        except Refused as refused:
            sys.exit(f"{refused}\nnothing was written; schemas/README.md says how a message may change")
        return
    wrong = check()
    for line in wrong:
        print(line)
    if wrong:
        sys.exit("run `uv run python -m sparring.schema_files write`; schemas/README.md says how a message may change")


if __name__ == "__main__":
    main()
