"""Orders by hand: lanes, the cluster's switch, nodes, models, dead letters."""

from __future__ import annotations

import asyncio
import getpass
import json
import time
from pathlib import Path
from typing import Annotated

import typer

from sparring.cli.common import Data, Nats, plain
from sparring.client import Client
from sparring.contracts.base import Order
from sparring.contracts.health import (
    DrainNode,
    ForgetNode,
    RetireNode,
    SwitchCluster,
)
from sparring.contracts.lifecycle import RollBack
from sparring.contracts.pipeline import PauseLane, RegisterLane, ResumeLane
from sparring.contracts.selfplay_orch import BoostLane
from sparring.known import NAMED

Reason = Annotated[str, typer.Option(help="Why; stands in the fact.")]


def order(nats: str | None, data: str | None, *orders: Order, expires_s: float | None = None) -> None:
    """Sends the orders and prints the facts they led to.

    Raises BadInput before anything is sent when one names a lane, node or task that the log does not know, and typer.Exit
    with code 1 in the end when an owner refused one.
    """

    async def run() -> bool:
        refused = False
        async with Client(nats, data) as client:
            for one in orders:
                await _is_there(client, one)
            for one in orders:
                facts = await client.ask(one, expires_s=expires_s)
                for fact in facts:
                    name = type(fact.fact).__name__
                    refused |= name.endswith("Refused")
                    body = json.dumps(plain(fact.fact.model_dump(mode="json", exclude={"spec"})))
                    typer.echo(f"{fact.sequence} {name} {body}")
                if not facts:
                    typer.echo(
                        f"{type(one).__name__} {one.id}: changed nothing (or its owner is down and obeys it later)"
                    )
        return refused

    if asyncio.run(run()):
        raise typer.Exit(1)


async def _is_there(client: Client, one: Order) -> None:
    if isinstance(one, RegisterLane):
        return
    for field in NAMED:
        if name := getattr(one, field, ""):
            await client.check_known(field, name)


def revision() -> int:
    """Orders that undo each other carry a rising number: an older one that arrives late is refused."""
    return time.time_ns() // 1_000_000


def pause(
    lane: Annotated[str, typer.Argument(help="The lane; without it the whole cluster.")] = "",
    reason: Reason = "",
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Starts nothing new; what runs finishes."""
    me = getpass.getuser()
    if lane:
        order(nats, data, PauseLane(lane=lane, revision=revision(), by=me, reason=reason))
    else:
        order(nats, data, SwitchCluster(state="paused", revision=revision(), by=me, reason=reason))


def resume(
    lane: Annotated[str, typer.Argument(help="The lane; without it the whole cluster.")] = "",
    override_s: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds in which health pauses nothing by itself; default an hour when it had."),
    ] = None,
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Undoes pause and halt."""
    me = getpass.getuser()
    if lane:
        order(nats, data, ResumeLane(lane=lane, revision=revision(), by=me))
    else:
        order(nats, data, SwitchCluster(state="running", revision=revision(), by=me, override_s=override_s))


def halt(reason: Reason = "", nats: Nats = None, data: Data = None) -> None:
    """Emergency stop: every child process of every node ends within 10 s."""
    order(nats, data, SwitchCluster(state="halted", revision=revision(), by=getpass.getuser(), reason=reason))


def drain(
    node: Annotated[str, typer.Argument(help="The node; without it the whole cluster.")] = "",
    reason: Reason = "",
    grace_s: Annotated[float, typer.Option(min=0, help="Seconds that running tasks get.")] = 60.0,
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Empties a node: no new work, partial results saved, everything brought to the store. Without a node nothing new
    starts anywhere, and what runs finishes."""
    if not node:
        me = getpass.getuser()
        order(nats, data, SwitchCluster(state="draining", revision=revision(), by=me, reason=reason))
        return
    order(nats, data, DrainNode(node=node, by=getpass.getuser(), reason=reason, grace_s=grace_s))


def forget_node(
    node: Annotated[str, typer.Argument(help="The node.")],
    reason: Reason = "by hand",
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Stops counting a node that is gone; it joins again when it beats again. Refused while it is alive."""
    order(nats, data, ForgetNode(node=node, by=getpass.getuser(), reason=reason))


def retire_node(
    node: Annotated[str, typer.Argument(help="The node.")],
    reason: Reason = "by hand",
    nats: Nats = None,
    data: Data = None,
) -> None:
    """No work for a node until its agent starts anew; what it runs is placed elsewhere at once."""
    order(nats, data, RetireNode(node=node, by=getpass.getuser(), reason=reason))


def boost(
    lane: Annotated[str, typer.Argument(help="The lane.")],
    factor: Annotated[float, typer.Option(min=1.0, max=3.0, help="3, 2, 1.25 or 1.")] = 2.0,
    for_s: Annotated[float, typer.Option(min=1, help="Seconds until it ends by itself.")] = 3600.0,
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Gives a lane more of the seats for a while. While another lane wants them none gets more than 30 %, or its equal part
    where fewer than four lanes want seats: then a boost changes nothing."""
    order(nats, data, BoostLane(lane=lane, factor=factor, for_s=for_s, revision=revision(), by=getpass.getuser()))


def rollback(
    lane: Annotated[str, typer.Argument(help="The lane.")],
    to: Annotated[str, typer.Option(help="The model's hash; default: the one before.")] = "",
    reason: Reason = "by hand",
    nats: Nats = None,
    data: Data = None,
) -> None:
    """Puts an earlier model back into production."""
    order(nats, data, RollBack(lane=lane, to=to, by=getpass.getuser(), reason=reason))


def add_lanes(
    file: Annotated[Path, typer.Argument(help="A lane file (TOML).")], nats: Nats = None, data: Data = None
) -> None:
    """Registers the lanes of a file; a lane that exists is edited."""
    from sparring.lane_file import load_lanes

    order(nats, data, *(RegisterLane(lane=spec.name, spec=spec) for spec in load_lanes(file)))
