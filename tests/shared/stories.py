"""Facts told into a log, and what the command line answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

from click.testing import Result
from nats.aio.client import Client as Nats
from typer.testing import CliRunner

from sparring import clock
from sparring.cli.app import build
from sparring.client import Client
from sparring.contracts.base import Fact
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.lifecycle import Lineage, ModelRegistered
from sparring.contracts.parts import Artifact
from sparring.contracts.pipeline import RegisterLane
from sparring.decider import Decider
from sparring.entity_store import Because, EntityStore
from sparring.errors import BadInput, CannotAnswer
from sparring.log import JetStreamLog
from sparring.testing.processes import Replica, app_of


async def typed(*words: str) -> Result:
    """What the command line answers, its exception as it is."""
    return await asyncio.to_thread(CliRunner().invoke, build(), list(words))


def spar(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(build(), list(words))
    if isinstance(done.exception, BadInput | CannotAnswer):
        return 2, json.dumps(str(done.exception))
    return done.exit_code, done.output


@contextlib.asynccontextmanager
async def lane_of_pipeline(url: str, folder: Path) -> AsyncIterator[tuple[Client, Replica]]:
    """A running `pipeline`, its files in `folder`, where the lane `hex` was just registered."""
    spec = LaneSpec(name="hex", game="hex", commands={"selfplay": ("true", "{job}", "{out}")}, enabled=False)
    replica = Replica(app_of("pipeline"), url, folder / "data").start()
    try:
        async with Client(url, outbox=folder / "outbox") as client:
            assert await client.ask(RegisterLane(lane="hex", spec=spec), within_s=60)
            yield client, replica
    finally:
        replica.kill()


def weights(model: str) -> Artifact:
    return Artifact(name="m", role="model", sha256=model, bytes=1, url="u")


def registered(model: str, number: int, parent: str = "", *, iteration: str) -> ModelRegistered:
    """A model of the lane `hex`."""
    lineage = Lineage(parent=parent, dataset="d" * 64, task="t", iteration=iteration, code_version="1", settings_hash="s",
                      slot_token=1)  # fmt: skip
    return ModelRegistered(
        lane="hex", model=model, number=number, artifact=weights(model), lineage=lineage, evidence={}
    )


async def tell(store: EntityStore, number: int, *facts: Fact) -> None:
    """One decision: facts of one or more entities in one batch."""
    deciders = {
        (Decider(fact.owner, fact.entity, None, lambda state, _: state, state_type=type(None)), fact.id)
        for fact in facts
    }
    entities = {decider.ref(id): (decider, id) for decider, id in deciders}
    because = Because(source="test", now=clock.now(), id=f"story-{number}")
    await store.execute(list(entities.values()), lambda _: list(facts), because)


async def after(nc: Nats, *story: Fact) -> tuple[EntityStore, str]:
    """A store of the log that tells the story, a decision a fact, and the server's address."""
    store = EntityStore(JetStreamLog(nc))
    for number, fact in enumerate(story):
        await tell(store, number, fact)
    return store, nc.connected_url.geturl()


async def asked(url: str, *words: str) -> str:
    """What `spar` answers; it must know."""
    code, text = await asyncio.to_thread(spar, *words, "--nats", url)
    assert code == 0, text
    return text
