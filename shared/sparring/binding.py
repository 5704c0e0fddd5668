"""How a service's pure parts are bound to a log, wherever that log lives: the shell and the simulator share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sparring import __version__
from sparring.contracts.base import Fact, Order
from sparring.contracts.settings import SETTINGS_ADOPTED
from sparring.decider import Append, Command, Context, Decider, Reaction, Send
from sparring.entity_store import Because, EntityStore, Outcome
from sparring.envelope import Envelope, derived_id
from sparring.errors import NoSuchEntity, UnknownMessage
from sparring.service import Service, ServiceSettings, settings_decider
from sparring.subjects import Ref

MOST_REMEMBERED = 50_000


def order_id(order: Order, key: str) -> str:
    """The id of an order that follows from a cause: the same cause, type and target give the same id."""
    return derived_id(key, type(order).__name__, order.id)


@dataclass(frozen=True)
class Obeying:
    """What an entity store needs to obey an order."""

    entities: Sequence[tuple[Decider[Any], str]]
    decide: Callable[[Mapping[Ref, Any]], Sequence[Fact]]
    because: Because


class Handlers:
    """The orders that a service obeys and the facts that it reacts to, by their class."""

    def __init__(self, service: Service) -> None:
        self._name = service.name
        self._commands = {one.order: one for one in service.commands}
        self._reactions = {one.fact: one for one in service.reactions}

    def command(self, order: Order) -> Command:
        """Raises UnknownMessage when the service obeys no such order."""
        found = self._commands.get(type(order))
        if found is None:
            raise UnknownMessage(f"{self._name} obeys no {type(order).__name__}")
        return found

    def reaction(self, fact: Fact) -> Reaction:
        """Raises UnknownMessage when the service reacts to no such fact."""
        found = self._reactions.get(type(fact))
        if found is None:
            raise UnknownMessage(f"{self._name} reacts to no {type(fact).__name__}")
        return found

    def reacts(self, fact: Fact) -> bool:
        return type(fact) in self._reactions


def obeying(
    command: Command, order: Order, envelope: Envelope, context: Context, source: str, traceparent: str = ""
) -> Obeying:
    """The decision on an order, for the entity store to take on the newest states."""
    own = command.decider.ref(order.id)
    others = command.also(order) if command.also else ()

    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        return command.decide(order, states if others else states[own], context)

    because = Because(
        source=source,
        now=context.now,
        id=envelope.id,
        order=envelope.id,
        cause=envelope.cause,
        correlation=envelope.correlation,
        traceparent=traceparent or envelope.traceparent,
    )
    return Obeying([(command.decider, order.id), *others], decide, because)


async def obey(
    store: EntityStore, command: Command, order: Order, envelope: Envelope, behind: Any, source: str, trace: str = ""
) -> Outcome:
    """Decides on the order with the entity's present state and appends what follows.

    `behind` gathers evidence and knows the `context()`. Only an order that mints an id can create an entity: raises
    NoSuchEntity for another one's.
    """
    if not command.mints and not await store.exists(command.decider, order.id):
        raise unknown(order)
    gathered = await command.gather(order, behind) if command.gather else None
    context = replace(behind.context(), id=envelope.id, gathered=gathered)
    what = obeying(command, order, envelope, context, source, trace)
    return await store.execute(what.entities, what.decide, what.because)


def unknown(order: Order) -> NoSuchEntity:
    """An order may overtake the one that mints its entity: it is tried again, and given up when that never comes."""
    return NoSuchEntity(
        f"{type(order).__name__} names {order.entity} {order.id!r}, of which {order.owner} has no fact; "
        "if it does not come into being while this is tried again, check the name"
    )


class Repeats:
    """When an order may be sent again: at once the first time, then after its `again_s`; times in seconds."""

    def __init__(self) -> None:
        self._until: dict[tuple[type[Order], str, str], float] = {}
        self._most = MOST_REMEMBERED

    def due(self, send: Send, now: float) -> bool:
        return now >= self._until.get((type(send.order), send.order.id, send.key), 0.0)

    def sent(self, send: Send, now: float) -> None:
        self._until[type(send.order), send.order.id, send.key] = now + send.again_s
        if len(self._until) > self._most:
            self._until = {one: until for one, until in self._until.items() if until > now}
            # what is still waited for is not looked through at every order
            self._most = max(MOST_REMEMBERED, 2 * len(self._until))


def adoption(service: Service, settings: ServiceSettings) -> Append:
    """Says under which settings the service runs from now on; nothing while they are the same."""
    decider = settings_decider(service.name)
    hash, ref = settings.fingerprint(), decider.ref(service.name)
    fact = SETTINGS_ADOPTED[service.name].model_validate(
        {"service": service.name, "hash": hash, "build": __version__, "values": settings.model_dump(mode="json")}
    )
    return Append([(decider, service.name)], lambda states: [] if states[ref] == hash else [fact])
