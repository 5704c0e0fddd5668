"""How a message may change: what breaks the rule is refused, with the field and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from sparring import schema_files
from sparring.compatibility import incompatible, missing_upcasts
from sparring.contracts.base import FACTS, Fact
from sparring.contracts.training_slots import SlotClaimed
from sparring.contracts.upcasts import UPCASTS


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Inner(Strict):
    n: int


class Before(Strict):
    name: str
    kind: Literal["a", "b"]
    inner: Inner
    many: tuple[Inner, ...] = ()
    note: str = ""
    seconds: float = Field(ge=0)
    maybe: int | None = None


def change(**fields: Any) -> type[BaseModel]:
    """The same message with other fields; None takes one away."""
    known: dict[str, Any] = {
        name: (field.annotation, field) for name, field in Before.model_fields.items() if name not in fields
    }
    more = {name: value for name, value in fields.items() if value is not None}
    from pydantic import create_model

    return create_model("Before", __config__=ConfigDict(frozen=True, extra="forbid"), **known, **more)


def told(**fields: Any) -> list[str]:
    return incompatible(Before.model_json_schema(), change(**fields).model_json_schema())


class InnerMore(Strict):
    n: int
    m: int = 0


class InnerBroken(Strict):
    n: str


InnerMore.__name__ = InnerBroken.__name__ = "Inner"


@pytest.mark.parametrize(
    "fields",
    [{}, {"more": (int, 3)}, {"kind": (Literal["a", "b", "c"], ...)}, {"inner": (InnerMore, ...)},
     {"note": (str, Field(default="", description="for people"))}],
)  # fmt: skip
def test_a_message_may_gain_optional_fields_and_values_of_an_enumeration(fields: dict[str, Any]) -> None:
    assert told(**fields) == []


@pytest.mark.parametrize(
    ("fields", "where", "what"),
    [
        ({"note": None}, "note", "removed or renamed"),
        ({"more": (int, ...)}, "more", "is new and has no default"),
        ({"note": (str, ...)}, "note", "became required"),
        ({"name": (str, "x")}, "name", "became optional"),
        ({"name": (int, ...)}, "name", "type was 'string', is 'integer'"),
        ({"kind": (Literal["a"], ...)}, "kind", "the value 'b' was removed"),
        ({"kind": (str, ...)}, "kind", "an enumeration began or ended"),
        ({"note": (str, "other")}, "note", "default was '', is 'other'"),
        ({"seconds": (float, Field(ge=1))}, "seconds", "minimum was 0, is 1"),
        ({"maybe": (int | str | None, None)}, "maybe", "anyOf had 2 types, has 3"),
        ({"inner": (InnerBroken, ...)}, "inner.n", "type was 'integer', is 'string'"),
        ({"many": (tuple[InnerBroken, ...], ())}, "many[].n", "type was 'integer', is 'string'"),
    ],
)
def test_any_other_change_names_the_field_and_the_remedy(fields: dict[str, Any], where: str, what: str) -> None:
    found = told(**fields)
    assert any(one.startswith(f"{where}: ") and what in one for one in found), found
    assert all("raise the message's version and add an upcast" in one for one in found)


def test_a_version_without_its_upcast_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SlotClaimed, "version", 3)
    name = "training-slots/SlotClaimed"
    assert [one.split(";")[0] for one in missing_upcasts(SlotClaimed)] == [
        f"{name}: no upcast from v1 to v2", f"{name}: no upcast from v2 to v3"
    ]  # fmt: skip
    monkeypatch.setitem(UPCASTS, (name, 1), lambda data: data)
    monkeypatch.setitem(UPCASTS, (name, 2), lambda data: data)
    assert missing_upcasts(SlotClaimed) == []


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of schemas/ that a test may change."""
    import shutil

    shutil.copytree("schemas", tmp_path / "schemas")
    monkeypatch.setattr(schema_files, "FOLDER", tmp_path / "schemas")
    return tmp_path / "schemas"


def test_the_write_command_refuses_and_writes_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tree / "training-slots" / "SlotClaimed.v1.json"
    before = path.read_text()
    place = next(place for place, cls in FACTS.items() if cls is SlotClaimed)

    class Broken(Fact):
        lane: int

    Broken.__name__ = "SlotClaimed"
    Broken.owner, Broken.entity, Broken.key, Broken.version = "training-slots", "pool", "lane", 1
    monkeypatch.setitem(FACTS, place, Broken)
    with pytest.raises(schema_files.Refused, match=r"training-slots/SlotClaimed\.v1: lane: type was 'string'"):
        schema_files.write()
    assert path.read_text() == before
    assert any("holder: was removed" in one for one in schema_files.check())


def test_a_version_that_goes_down_or_a_schema_that_disappears_is_refused(tree: Path) -> None:
    older = tree / "training-slots" / "SlotClaimed.v1.json"
    (tree / "training-slots" / "SlotClaimed.v2.json").write_text(older.read_text())
    assert any("a version never goes down" in one for one in schema_files.refusals())


def test_what_is_checked_in_breaks_no_rule() -> None:
    assert schema_files.refusals() == []
