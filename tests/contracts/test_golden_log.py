"""Every version of every message ever committed folds to a stored state, through every decider, picture and read model."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparring import golden


def test_the_golden_log_holds_every_version_and_folds_to_the_stored_states() -> None:
    assert golden.check() == []


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
