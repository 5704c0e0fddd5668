"""The golden log: one message of every version ever committed, and the states that all folds make of it.

`python -m sparring.golden write` appends what is missing: lines are never changed or removed. `python -m sparring.golden
expect --reason "…"` stores what the log folds to now; `check` compares. A state may gain fields; what it held before stays.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sparring.catalogue import deciders, services
from sparring.contracts import FACTS, ORDERS
from sparring.contracts.base import Fact, Message
from sparring.contracts.upcasts import upcast
from sparring.decider import Recorded
from sparring.entity_store import adapter_of
from sparring.envelope import Envelope, decode, headers_of, recorded
from sparring.errors import SparringError
from sparring.hearing import heard
from sparring.log.interface import Raw
from sparring.projection import Projection
from sparring.service import Service
from sparring.subjects import ref_of, subject_of

SAMPLES, FOLDER = Path("schemas/samples"), Path("schemas/golden")
BEGAN = datetime(2030, 1, 1, tzinfo=UTC)
ID = "golden"
# what a fold raises when a fact comes before its cause, and decoding when nobody can read it any more
BROKEN = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, SparringError)


def log_path() -> Path:
    return FOLDER / "log.ndjson"


def state_path() -> Path:
    return FOLDER / "state.json"


def read_log() -> list[Raw]:
    """The messages in their order; facts and orders."""
    if not log_path().exists():
        return []
    return [_raw(json.loads(line)) for line in log_path().read_text().splitlines()]


def _raw(line: Mapping[str, Any]) -> Raw:
    at = datetime.fromisoformat(line["at"])
    return Raw(line["sequence"], at, line["subject"], line["headers"], json.dumps(line["body"]).encode())


def missing() -> list[tuple[type[Message], int]]:
    """Messages with a sample whose version has no line yet, in the order of the contracts."""
    known = {raw.headers["ce-dataschema"] for raw in read_log()}
    found = []
    for cls in [*FACTS.values(), *ORDERS.values()]:
        for path in sorted((SAMPLES / cls.owner).glob(f"{cls.__name__}.v*.json")):
            version = int(path.stem.rpartition(".v")[2])
            if f"{cls.owner}/{cls.__name__}.v{version}" not in known:
                found.append((cls, version))
    return found


def write() -> list[str]:
    """Appends a line for each missing version, where it makes sense to what comes before; returns their names.

    Raises ValueError for a fact that nothing before it makes possible: give it its cause by hand.
    """
    lines = [json.loads(line) for line in log_path().read_text().splitlines()] if log_path().exists() else []
    frozen, added = len(lines), []
    for cls, version in missing():
        lines = _placed(lines, frozen, _line(cls, version))
        added.append(f"{cls.owner}/{cls.__name__}.v{version}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with log_path().open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines[frozen:])
    return added


def _placed(lines: list[dict[str, Any]], frozen: int, line: dict[str, Any]) -> list[dict[str, Any]]:
    """With the line at its last possible place, alone or right behind a repeated earlier message of its owner."""
    for place in range(len(lines), frozen - 1, -1):
        tried = _numbered([*lines[:place], line, *lines[place:]])
        if _folds(tried):
            return tried
    owner = line["subject"].split(".")[1]
    for cause in [one for one in lines if one["subject"].split(".")[1] == owner]:
        tried = _numbered([*lines, cause, line])
        if _folds(tried):
            return tried
    raise ValueError(
        f"{line['headers']['ce-dataschema']}: nothing in {log_path()} makes it possible; add its cause by hand"
    )


def _numbered(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        line | {"sequence": number, "at": (BEGAN + timedelta(seconds=number)).isoformat()}
        for number, line in enumerate(lines, start=1)
    ]


def _folds(lines: list[dict[str, Any]]) -> bool:
    told = [one for line in lines if line["subject"].startswith("evt.") and (one := heard(_raw(line))) is not None]
    try:
        for service in services():
            _entities(service, told)
            _picture(service, told)
    except BROKEN:
        return False
    return True


def _line(cls: type[Message], version: int) -> dict[str, Any]:
    data = json.loads((SAMPLES / cls.owner / f"{cls.__name__}.v{version}.json").read_text())
    for name in (cls.key, "lane"):
        data = _named(cls, version, data, name)
    message = cls.model_validate_json(json.dumps(upcast(cls, version, data)))
    schema = f"{cls.owner}/{cls.__name__}.v{version}"
    headers = headers_of(message, Envelope(f"{ID}-{schema}", ID, BEGAN)) | {"ce-dataschema": schema}
    return {"sequence": 0, "at": BEGAN.isoformat(), "subject": subject_of(message), "headers": headers, "body": data}


def _named(cls: type[Message], version: int, data: dict[str, Any], name: str) -> dict[str, Any]:
    """The same entity in all of its messages, where the field may hold any name."""
    if not isinstance(data.get(name), str):
        return data
    draft = data | {name: ID}
    try:
        cls.model_validate_json(json.dumps(upcast(cls, version, draft)))
    except ValueError:
        return data
    return draft


def folded(up_to: int) -> dict[str, Any]:
    """What the first lines fold to: every entity, every picture, every table; and every order as it decodes."""
    raws = [raw for raw in read_log() if raw.sequence <= up_to]
    facts = [raw for raw in raws if raw.subject.startswith("evt.")]
    told = [one for raw in facts if (one := heard(raw)) is not None]
    state: dict[str, Any] = {"entities": {}, "pictures": {}, "tables": {}, "orders": {}}
    for service in services():
        state["entities"] |= _entities(service, told)
        state["pictures"] |= _picture(service, told)
        if service.read_models:
            state["tables"] |= _tables(service, facts)
    for raw in raws:
        if raw.subject.startswith("cmd."):
            message = decode(raw.subject, raw.headers, raw.body)
            state["orders"][raw.headers["ce-dataschema"]] = message.model_dump(mode="json")
    return dict(json.loads(json.dumps(state)))


def _entities(service: Service, told: Sequence[Recorded]) -> dict[str, Any]:
    found = {}
    for _, decider in sorted(deciders().items()):
        if decider.owner != service.name or decider.entity == "settings":
            continue
        states: dict[str, Any] = {}
        for one in told:
            ref = ref_of(one.fact)
            if (ref.owner, ref.entity) == (decider.owner, decider.entity):
                states[ref.id] = decider.evolve(states.get(ref.id, decider.initial), one)
        for id, value in states.items():
            dumped = adapter_of(decider).dump_python(value, mode="json")
            found[f"{decider.owner}/{decider.entity}/{id}"] = _plain(dumped)
    return found


def _picture(service: Service, told: Sequence[Recorded]) -> dict[str, Any]:
    if service.picture is None:
        return {}
    picture = service.picture()
    for one in told:
        picture.apply(one)
    return {service.name: _plain(picture.dump())}


def _tables(service: Service, facts: list[Raw]) -> dict[str, Any]:
    projection = Projection(":memory:", service.read_models)
    projection.apply(facts)
    found = {}
    for name in projection.tables():
        cursor = projection.con.execute(f"select * from {name}")
        columns = [str(column[0]) for column in cursor.description or ()]
        rows = [dict(zip(columns, map(_cell, row), strict=True)) for row in cursor.fetchall()]
        found[name] = sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))
    projection.close()
    return found


def _cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _plain(value: Any) -> Any:
    """Sets come in any order: lists of texts are sorted."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        items = [_plain(one) for one in value]
        return sorted(items) if all(isinstance(one, str) for one in items) else items
    return value


def differences(wanted: Any, found: Any, where: str = "") -> Iterator[str]:
    """What was expected and is not there, by its path; fields that are new are fine."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            path = f"{where}.{key}" if where else str(key)
            if key not in found:
                yield f"{path} is gone"
            else:
                yield from differences(value, found[key], path)
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from differences(one, other, f"{where}[{number}]")
    elif wanted != found:
        yield f"{where} was {wanted!r}, is {found!r}"


def expect(reason: str) -> None:
    """Stores what the log folds to now. `reason` says why it may differ from what was stored before."""
    up_to = len(read_log())
    data = {"reason": reason, "up_to": up_to, "state": folded(up_to)}
    state_path().write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")


def check() -> list[str]:
    """Versions without a line; lines that no longer decode or apply; states that differ from the stored ones."""
    wrong = [
        f"{cls.owner}/{cls.__name__}.v{version} has no line: python -m sparring.golden write"
        for cls, version in missing()
    ]
    for raw in read_log():
        try:
            if raw.subject.startswith("evt."):
                assert isinstance(recorded(raw.sequence, raw.subject, raw.headers, raw.body, raw.at).fact, Fact)
        except BROKEN as error:
            return [*wrong, f"line {raw.sequence} {raw.headers['ce-dataschema']}: {type(error).__name__}: {error}"]
    stored = json.loads(state_path().read_text())
    # lines that came after the expectation was stored must fold, whatever they fold to
    folded(len(read_log()))
    remedy = 'if that is meant: python -m sparring.golden expect --reason "why"'
    return wrong + [f"{one}; {remedy}" for one in differences(stored["state"], folded(stored["up_to"]))]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sparring.golden", description=__doc__)
    parser.add_argument("what", choices=("write", "expect", "check"))
    parser.add_argument("--reason", default="", help="why the stored states may change")
    asked = parser.parse_args()
    if asked.what == "write":
        print("\n".join(write()) or "nothing is missing")
        return
    if asked.what == "expect":
        if not asked.reason.strip():
            sys.exit("--reason is empty; say why the log may fold to other states than before")
        expect(asked.reason)
        return
    wrong = check()
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
