"""The steps that a lane leaves to people: export, train, evaluate, promote, and bringing its games to the store."""

from __future__ import annotations

import asyncio
import getpass
from dataclasses import asdict
from typing import Annotated, Any

import typer

from sparring.cli.common import AsJson, At, Data, Nats, footer, print_json, table, with_reader
from sparring.cli.control import Reason, order
from sparring.cli.overview import by_hand
from sparring.client import Client
from sparring.contracts.base import Order
from sparring.contracts.lanes import Step
from sparring.contracts.lifecycle import PromoteModel, RejectModel
from sparring.contracts.pipeline import TakeStep
from sparring.errors import BadInput
from sparring.questions import ask
from sparring.reader import Reader

OPEN = """
select l.spec, i.* from pipeline_lanes l left join pipeline_iterations i on i.lane = l.lane and i.outcome is null
where l.lane = ? order by i.number desc limit 1
"""
Lane = Annotated[str, typer.Argument(help="The lane.")]


def step(
    lane: Lane,
    name: Annotated[
        str, typer.Argument(help="sync, export, train, evaluate or promote; without it the one that is waited for.")
    ] = "",
    model: Annotated[str, typer.Option(help="With promote: the model's hash; default: the only one that waits.")] = "",
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Lets a lane take a step that is not in its `auto`; it is taken once what it needs is there."""
    for one in asyncio.run(_orders(lane, name, model, nats, data)):
        order(nats, data, one)


async def _orders(lane: str, name: str, model: str, nats: str | None, data: str | None) -> list[Order]:
    async with Client(nats, data) as client:
        found = await client.rows(OPEN, [lane])
        if not found:
            raise BadInput(f"lane = {lane!r} is not registered; see spar lanes")
        row, me = found[0], getpass.getuser()
        steps = [name] if name else [str(one) for one in by_hand(row["spec"]["auto"], row)]
        if not steps:
            raise BadInput(f"lane {lane} waits for no step by hand; spar why {lane} says for what it waits")
        orders: list[Order] = []
        for one in steps:
            if one == "promote":
                orders.append(PromoteModel(lane=lane, model=model, by=me))
            elif one == "sync":
                print(f"{await client.sync_now(lane)} batches of {lane} go to the store")
            else:
                orders.append(TakeStep(iteration=_open(row, lane), step=_step(one), by=me))
        return orders


def _open(row: dict[str, Any], lane: str) -> str:
    if row["iteration"] is None:
        raise BadInput(f"lane {lane} has no open iteration; spar why {lane} says why")
    return str(row["iteration"])


def _step(name: str) -> Step:
    match name:
        case "export" | "train" | "evaluate":
            return name
    raise BadInput(f"step = {name!r} is none; use sync, export, train, evaluate or promote")


def reject(
    lane: Lane,
    model: Annotated[str, typer.Option(help="The model's hash; default: the only one that waits.")] = "",
    reason: Reason = "by hand",
    nats: Nats = None,
    data: Data = None,
) -> None:
    """A model that passed its gate and waits for a person is not to play; the lane goes on without it."""
    order(nats, data, RejectModel(lane=lane, model=model, by=getpass.getuser(), reason=reason))


def sync(
    lane: Annotated[str, typer.Argument(help="Only this lane's batches.")] = "",
    now: Annotated[
        bool, typer.Option("--now", help="Bring them before all others, also where it is done by hand.")
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
        asyncio.run(_sync_now(lane, nats, data))

    async def recommended(reader: Reader) -> list[dict[str, Any]]:
        return [asdict(one) for one in await ask(reader, "sync", "recommendations", lane=lane)]

    rows, as_of = with_reader(nats, data, at, recommended)
    if as_json:
        print_json(as_of, batches=rows)
        return
    table(rows, ("batch", "lane", "node", "state", "games", "age_s:age, s", "urgency", "failures", "why"),
          empty="all games are in the store")  # fmt: skip
    footer(as_of)


async def _sync_now(lane: str, nats: str | None, data: str | None) -> None:
    async with Client(nats, data) as client:
        typer.echo(f"{await client.sync_now(lane)} batches are asked for")
