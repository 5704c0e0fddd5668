"""The steps that a lane leaves to people: export, train, evaluate, promote, and bringing its games to the store."""

from __future__ import annotations

import asyncio
import getpass
from dataclasses import asdict
from typing import Annotated, Any

import typer

from sparring.cli.common import AsJson, At, Data, Nats, check_lane, footer, print_json, table, with_reader
from sparring.cli.control import Reason, order
from sparring.cli.holds import by_hand, standing
from sparring.client import Client
from sparring.contracts.base import Order
from sparring.contracts.lifecycle import PromoteModel, RejectModel
from sparring.contracts.pipeline import TakeStep
from sparring.errors import BadInput
from sparring.questions import ask
from sparring.reader import Reader

# what a person saw when he typed it is something else later
EXPIRES_S = 600.0
Lane = Annotated[str, typer.Argument(help="The lane.")]
Model = Annotated[str, typer.Option(help="The model's hash, or its beginning; default: the only one that waits.")]


def step(
    lane: Lane,
    name: Annotated[
        str, typer.Argument(help="sync, export, train, evaluate or promote; without it the one that is waited for.")
    ] = "",
    model: Model = "",
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Lets a lane take a step that is not in its `auto`; it is taken once what it needs is there."""
    if model and name != "promote":
        raise BadInput(f"--model = {model!r} goes with promote alone: spar step {lane} promote --model {model}")
    stands = _stands(lane, nats, data)
    for one in [name] if name else _waits_for(stands):
        if one == "sync":
            typer.echo(f"{asyncio.run(_sync_now(lane, nats, data))} batches of {lane} are asked for")
        else:
            order(nats, data, _order(stands, one, model), expires_s=EXPIRES_S)


def reject(lane: Lane, model: Model = "", reason: Reason = "by hand", nats: Nats = None, data: Data = None) -> None:
    """A model that passed its gate and waits for a person is not to play; the lane goes on without it."""
    which = _waiting(_stands(lane, nats, data), model)
    turned_down = RejectModel(lane=lane, model=which, by=getpass.getuser(), reason=reason)
    order(nats, data, turned_down, expires_s=EXPIRES_S)


def _stands(lane: str, nats: str | None, data: str | None) -> dict[str, Any]:
    async def find(reader: Reader) -> dict[str, Any] | None:
        return standing(reader, lane)

    found: dict[str, Any] | None = with_reader(nats, data, None, find)[0]
    if found is None:
        raise BadInput(f"lane = {lane!r} is not registered; see spar lanes")
    return found


def _waits_for(lane: dict[str, Any]) -> list[str]:
    steps = [*by_hand(lane), *(["promote"] if lane["passed"] else [])]
    if not steps:
        raise BadInput(f"lane {lane['lane']} waits for no step by hand; spar why {lane['lane']} says for what it waits")
    return steps


def _order(lane: dict[str, Any], step: str, model: str) -> Order:
    name, me = lane["lane"], getpass.getuser()
    match step:
        case "promote":
            return PromoteModel(lane=name, model=_waiting(lane, model), by=me)
        case "export" | "train" | "evaluate":
            if lane["iteration"] is None or lane["outcome"] is not None:
                raise BadInput(f"lane {name} has no open iteration; spar why {name} says why")
            return TakeStep(iteration=lane["iteration"], step=step, by=me)
    raise BadInput(f"step = {step!r} is none; use sync, export, train, evaluate or promote")


def _waiting(lane: dict[str, Any], model: str) -> str:
    """The hash of the model that is meant, of those that wait for a person."""
    there = [str(one["model"]) for one in lane["passed"] or ()]
    matching = [one for one in there if one.startswith(model)]
    if len(matching) == 1:
        return matching[0]
    known = ", ".join(one[:12] for one in there) or "none"
    raise BadInput(
        f"--model = {model!r} names {len(matching)} models of {lane['lane']} that wait for a person; there wait: {known}"
    )


def sync(
    lane: Annotated[str, typer.Argument(help="Only this lane's batches.")] = "",
    now: Annotated[
        bool, typer.Option("--now", help="Bring them before all others, also where a person does it.")
    ] = False,
    nats: Nats = None,
    data: Data = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Games that only a node holds, the most urgent first, and why each waits; `--now` brings them to the store."""
    if now and at:
        raise BadInput(f"--at = {at!r} with --now: what was cannot be brought; leave one of them out")
    if now:
        typer.echo(f"{asyncio.run(_sync_now(lane, nats, data))} batches are asked for")

    async def recommended(reader: Reader) -> list[dict[str, Any]]:
        check_lane(reader, lane)
        return [asdict(one) for one in await ask(reader, "sync", "recommendations", lane=lane)]

    rows, as_of = with_reader(nats, data, at, recommended)
    if as_json:
        print_json(as_of, batches=rows)
        return
    table(rows, ("batch", "lane", "node", "state", "games", "age_s:age, s", "urgency", "failures", "why"),
          empty="all games are in the store")  # fmt: skip
    footer(as_of)


async def _sync_now(lane: str, nats: str | None, data: str | None) -> int:
    async with Client(nats, data) as client:
        return await client.sync_now(lane)
