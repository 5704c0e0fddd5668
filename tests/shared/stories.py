"""Facts told into a log, and what the command line answers."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from sparring import clock
from sparring.cli.app import build
from sparring.contracts.base import Fact
from sparring.decider import Decider
from sparring.entity_store import Because, EntityStore
from sparring.errors import BadInput, CannotAnswer


def spar(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(build(), list(words))
    if isinstance(done.exception, BadInput | CannotAnswer):
        return 2, json.dumps(str(done.exception))
    return done.exit_code, done.output


async def tell(store: EntityStore, number: int, *facts: Fact) -> None:
    """One decision: facts of one or more entities in one batch."""
    deciders = {
        (Decider(fact.owner, fact.entity, None, lambda state, _: state, state_type=type(None)), fact.id)
        for fact in facts
    }
    entities = {decider.ref(id): (decider, id) for decider, id in deciders}
    because = Because(source="test", now=clock.now(), id=f"story-{number}")
    await store.execute(list(entities.values()), lambda _: list(facts), because)
