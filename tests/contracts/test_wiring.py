"""The static half of the wiring: a message is a class, and somebody hears it."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent import orders
from sparring.catalogue import services
from sparring.contracts import FACTS, ORDERS
from sparring.contracts.base import Fact, Order
from sparring.contracts.training_slots import SlotClaimed
from sparring.doctor.wiring import matches_a_contract, overlaps, unwired
from sparring.schema_files import messages, sample_path, undecodable
from sparring.subjects import class_of, filter_of, ref_of, retry_subject, subject_of, token, untoken, without_retry


def test_every_order_has_exactly_one_owner_who_obeys_it() -> None:
    obeyed = [command.order for service in services() for command in service.commands]
    assert len(obeyed) == len(set(obeyed))
    agents = {cls for cls in ORDERS.values() if cls.owner == "node-agent"}
    assert set(obeyed) | agents == set(ORDERS.values())
    heard = inspect.getsource(orders)
    assert all(f"case {cls.__name__}(" in heard for cls in agents)


def test_every_service_obeys_only_orders_to_itself() -> None:
    for service in services():
        assert all(command.order.owner == service.name for command in service.commands)
        assert all(command.decider.owner == service.name for command in service.commands)


def test_every_rule_of_a_read_model_hears_a_fact_that_exists() -> None:
    known = set(FACTS.values())
    for service in services():
        for model in service.read_models:
            assert all(fact in known for rule in model.rules for fact in rule.types)


def test_every_fact_is_said_in_its_owners_source() -> None:
    silent = []
    for cls in FACTS.values():
        if cls.owner == "archivist":
            # `spar log archive` says it, and every reader of the log hears it
            continue
        package = Path("services") / cls.owner / cls.owner.replace("-", "_")
        source = "\n".join(path.read_text() for path in package.rglob("*.py"))
        if cls.__name__ != "SettingsAdopted" and f"{cls.__name__}(" not in source and f"{cls.__name__}." not in source:
            silent.append(cls.__name__)
    assert silent == []


@pytest.mark.parametrize("cls", messages(), ids=lambda cls: cls.schema_name())
def test_every_sample_travels_on_its_own_subject(cls) -> None:  # type: ignore[no-untyped-def]
    message = cls.model_validate_json(sample_path(cls).read_text())
    subject = subject_of(message)
    assert class_of(subject) is cls
    assert subject.startswith("evt." if isinstance(message, Fact) else "cmd.")
    assert filter_of(cls).split(".")[:3] == subject.split(".")[:3]
    assert ref_of(message).pattern.rstrip(">") in subject.replace("cmd.", "evt.")


def test_every_sample_ever_committed_decodes() -> None:
    assert undecodable() == []


@given(st.text(min_size=1, max_size=40))
def test_ids_are_encoded_by_one_reversible_function(text: str) -> None:
    part = token(text)
    assert untoken(part) == text
    assert not set(part) & set(" .*>")


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_two_ids_never_share_a_token(one: str, other: str) -> None:
    assert (token(one) == token(other)) == (one == other)


def test_a_retry_reaches_only_the_twin() -> None:
    subject = retry_subject("sync", "cmd.sync.batch.b1.RecordGames")
    assert subject.startswith("retry.sync.")
    assert without_retry(subject) == "cmd.sync.batch.b1.RecordGames"


def test_schemas_name_their_subject() -> None:
    schema = json.loads(Path("schemas/training-slots/ClaimSlot.v1.json").read_text())
    assert schema["x-subject"] == "cmd.training-slots.pool.*.ClaimSlot"


# ---- incidents, row 1: who says is heard, who waits is spoken to


def test_every_fact_is_heard_and_every_order_obeyed() -> None:
    assert unwired(services()) == []


def test_a_fact_that_nobody_hears_is_found() -> None:
    class Orphan(Fact):
        owner: ClassVar[str] = "sync"

    facts = {*FACTS.values(), Orphan}
    assert [(one.about, one.severity) for one in unwired(services(), facts)] == [("fact Orphan", "warning")]


def test_an_order_that_nobody_obeys_is_found() -> None:
    class Unheeded(Order):
        owner: ClassVar[str] = "sync"

    found = unwired(services(), orders={*ORDERS.values(), Unheeded})
    assert [(one.about, one.severity) for one in found] == [("order Unheeded", "critical")]


def test_a_service_that_waits_for_what_nobody_declares_is_found() -> None:
    facts = set(FACTS.values()) - {SlotClaimed}
    found = [one.text for one in unwired(services(), facts) if one.severity == "critical"]
    assert any("waits for SlotClaimed, which no contract declares" in text for text in found)


def test_a_service_that_obeys_anothers_order_is_found() -> None:
    one, other = services()[:2]
    thief = replace(one, commands=[*one.commands, other.commands[0]])
    texts = [found.text for found in unwired([thief, *services()[1:]])]
    assert any("2 commands obey it" in text for text in texts)
    assert any(text.startswith(f"obeys {other.commands[0].order.__name__}") for text in texts)


def test_a_filter_that_matches_no_contract_is_found() -> None:
    messages = {*FACTS.values(), *ORDERS.values()}
    assert all(matches_a_contract(filter_of(cls), messages) for cls in messages)
    assert matches_a_contract("cmd.sync.>", messages)
    assert matches_a_contract(retry_subject("sync", "cmd.sync.batch.*.RecordGames"), messages)
    # one letter, and 0 are delivered
    assert not matches_a_contract("evt.sync.batch.*.GameRecorded", messages)
    assert not matches_a_contract("evt.sync.batch.GamesRecorded", messages)


def test_patterns_overlap_where_a_subject_matches_both() -> None:
    assert overlaps("a.*.c", "a.b.>") and overlaps("a.>", "a.b") and overlaps("*.b", "a.*")
    assert not overlaps("a.b", "a.b.c") and not overlaps("a.*", "a.b.c") and not overlaps("a.b", "b.>")
