"""Every version of every message ever committed folds to a stored state, through every decider, picture and read model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparring import golden
from sparring.catalogue import services
from sparring.hearing import heard


def test_the_golden_log_holds_every_version_and_folds_to_the_stored_states() -> None:
    assert golden.check() == []


def test_a_pictures_text_says_what_its_dump_says_and_is_loaded_again() -> None:
    told = [one for raw in golden.read_log() if raw.subject.startswith("evt.") and (one := heard(raw)) is not None]
    for make in [service.picture for service in services() if service.picture is not None]:
        picture, again = make(), make()
        for one in told:
            picture.apply(one)
        text = picture.text()
        assert json.loads(text) == json.loads(json.dumps(picture.dump()))
        again.load(json.loads(text))
        assert again.text() == text


def test_a_state_may_gain_fields_and_what_it_held_must_stay() -> None:
    assert list(golden.differences({"a": 1}, {"a": 1, "b": 2})) == []
    assert list(golden.differences({"a": {"b": 1}}, {"a": {"b": 2}})) == ["a.b was 1, is 2"]
    assert list(golden.differences({"a": {"b": 1}}, {"a": {}})) == ["a.b is gone"]
    assert list(golden.differences([1], [1, 2])) == [" was [1], is [1, 2]"]


def test_a_version_without_a_line_is_refused_and_lines_are_only_appended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = golden.log_path().read_text().splitlines()
    orders = [number for number, line in enumerate(whole) if '"subject": "cmd.' in line]
    monkeypatch.setattr(golden, "FOLDER", tmp_path)
    kept = whole[: orders[-1]]
    golden.log_path().write_text("".join(line + "\n" for line in kept))
    gone = [f"{cls.owner}/{cls.__name__}.v{version}" for cls, version in golden.missing()]
    assert gone
    assert golden.write() == gone
    assert golden.log_path().read_text().splitlines()[: len(kept)] == kept
