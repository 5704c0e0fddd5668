"""The smallest service that reacts: a fact is heard, an order is sent. `latency.py` starts it as a real process."""

from __future__ import annotations

from dataclasses import dataclass

from sparring.contracts.base import Fact, Order
from sparring.contracts.settings import SETTINGS_ADOPTED, settings_adopted
from sparring.decider import Command, Context, Decider, Reaction, Recorded, Send
from sparring.service import Service, ServiceSettings

NAME = "ext-echo"
SETTINGS_ADOPTED.setdefault(NAME, settings_adopted(NAME))


class Called(Fact, owner=NAME, entity="valley", key="call"):
    call: str


class Echoed(Fact, owner=NAME, entity="wall", key="call"):
    call: str


class Echo(Order, owner=NAME, entity="wall", key="call"):
    call: str


@dataclass(frozen=True)
class Wall:
    heard: int = 0


WALL = Decider(NAME, "wall", Wall(), lambda wall, _: Wall(wall.heard + 1))


def echo(order: Echo, _: Wall, __: Context) -> list[Fact]:
    return [Echoed(call=order.call)]


def react(one: Recorded, _: Context) -> list[Send]:
    return [Send(Echo(call=one.fact.id), key=f"echo-{one.fact.id}")]


SERVICE = Service(
    name=NAME,
    settings=ServiceSettings,
    commands=[Command(Echo, WALL, echo, mints=True)],
    reactions=[Reaction(Called, react)],
)
