"""Ids that are derived: the same cause, the same id, as every UUID library writes it."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from sparring.envelope import NAMESPACE, derived_id


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",))), max_size=4))
def test_a_derived_id_is_the_uuid_of_its_parts(parts: list[str]) -> None:
    assert derived_id(*parts) == str(uuid.uuid5(NAMESPACE, "\x1f".join(parts)))
