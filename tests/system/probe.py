"""A service that misbehaves as its orders say: what a handler can do wrong, it does.

PROBE_MENDED=yes is the build in which the bug is mended; PROBE_VERSION=2 knows a newer version of the order and the fact;
PROBE_ORDERED=yes asks for the original order.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, replace
from typing import Any

import sparring
from sparring import binding, delivery, shell
from sparring.contracts import upcasts
from sparring.contracts.base import Fact, Order
from sparring.contracts.settings import SETTINGS_ADOPTED, settings_adopted
from sparring.decider import Command, Context, Decider, Reaction, Recorded, Send
from sparring.errors import DependencyDown, Permanent
from sparring.service import Service, ServiceSettings

NAME = "ext-probe"
MENDED = os.environ.get("PROBE_MENDED") == "yes"
VERSION = int(os.environ.get("PROBE_VERSION", "1"))
DEPENDENCY = os.environ.get("PROBE_DEPENDENCY", "")
# a handler that takes longer than the server waits for its answer
SLOW_S = float(os.environ.get("PROBE_SLOW_S", "2.5"))
HANDLER_S = float(os.environ.get("PROBE_HANDLER_S", str(0.5 + SLOW_S)))

SETTINGS_ADOPTED.setdefault(NAME, settings_adopted(NAME))
# what a test can wait for
delivery.DELAYS_S = (0.05, 0.05, 0.05, 0.05)
if MENDED or VERSION > 1:
    for module in (sparring, binding, shell):
        module.__version__ = f"0.2.{VERSION}"  # type: ignore[attr-defined]


class Refused(Permanent):
    """What never succeeds."""


class Poke(Order, owner=NAME, entity="thing", key="thing", version=VERSION):
    thing: str
    mode: str
    if VERSION > 1:
        because: str


class Poked(Fact, owner=NAME, entity="thing", key="thing", version=VERSION):
    thing: str
    mode: str
    if VERSION > 1:
        because: str


class Echoed(Fact, owner=NAME, entity="echo", key="thing"):
    thing: str


class Echo(Order, owner=NAME, entity="echo", key="thing"):
    thing: str


if VERSION > 1:
    for name in ("Poke", "Poked"):
        upcasts.UPCASTS[f"{NAME}/{name}", 1] = lambda data: {**data, "because": "unknown"}


@dataclass(frozen=True)
class Thing:
    poked: int = 0


def evolve(thing: Thing, recorded: Recorded) -> Thing:
    return replace(thing, poked=thing.poked + 1) if isinstance(recorded.fact, Poked) else thing


THING = Decider(NAME, "thing", Thing(), evolve)
ECHO = Decider(NAME, "echo", Thing(), lambda thing, _: replace(thing, poked=thing.poked + 1))


async def misbehave(order: Poke, _: Any) -> None:
    if order.mode == "waits" and not os.path.exists(DEPENDENCY):
        raise DependencyDown("the store does not answer")
    if order.mode == "slow":
        await asyncio.sleep(SLOW_S)
    if MENDED:
        return
    match order.mode:
        case "raises":
            raise ValueError(f"a bug in the handler, met by {order.thing}")
        case "refuses":
            raise Refused(f"never for {order.thing}")
        case "hangs":
            await asyncio.sleep(3600)


def poke(order: Poke, thing: Thing, ctx: Context) -> list[Fact]:
    return [Poked(**order.model_dump())]


def echo(order: Echo, thing: Thing, ctx: Context) -> list[Fact]:
    return [Echoed(thing=order.thing)]


def react(one: Recorded, ctx: Context) -> list[Send]:
    if getattr(one.fact, "mode", "") == "breaks the reaction" and not MENDED:
        raise ValueError("a bug in the reaction")
    return [Send(Echo(thing=one.fact.id), key=f"echo-{one.fact.id}")]


SERVICE = Service(
    name=NAME,
    settings=ServiceSettings,
    commands=[Command(Poke, THING, poke, mints=True, gather=misbehave), Command(Echo, ECHO, echo, mints=True)],
    reactions=[Reaction(Poked, react)],
    handler_s=HANDLER_S,
    ordered=os.environ.get("PROBE_ORDERED") == "yes",
)
