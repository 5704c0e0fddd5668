"""Who says and who hears, from the catalogue alone: no server is needed, so this half runs in CI as well."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from sparring.contracts.base import FACTS, ORDERS, Fact, Message, Order
from sparring.doctor.finding import Finding
from sparring.service import Service
from sparring.streams import COMMANDS, EVENTS, Durable
from sparring.subjects import filter_of, without_retry

# who asks and waits for the answer: `Client.ask` returns every fact with its order's id, and `spar` prints it
ASKERS = ("sparring.client", "sparring.cli")
# who obeys orders without being a service: its consumers are made per node
AGENTS = "node-agent"


def overlaps(one: str, other: str) -> bool:
    """Whether some subject matches both patterns; `*` is one token, `>` the rest, at least one."""
    return _overlap(one.split("."), other.split("."))


def _overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if a == ">" or b == ">":
            return True
        if a != b and "*" not in (a, b):
            return False
        if number + 1 == min(len(one), len(other)):
            return len(one) == len(other)
    return False


def matches_a_contract(pattern: str, messages: Collection[type[Message]]) -> bool:
    """Whether any message travels on the pattern; of a twin's pattern the part behind the durable counts."""
    plain = without_retry(pattern)
    if plain == ">":
        return True
    return any(overlaps(plain, filter_of(cls)) for cls in messages)


def unwired(
    services: Sequence[Service],
    facts: Collection[type[Fact]] | None = None,
    orders: Collection[type[Order]] | None = None,
) -> list[Finding]:
    """Facts that nobody hears, orders that nobody obeys, rules and filters that match no contract."""
    facts = set(FACTS.values()) if facts is None else set(facts)
    orders = set(ORDERS.values()) if orders is None else set(orders)
    return [
        *_unheard(services, facts),
        *_disobeyed(services, orders),
        *_strangers(services, facts),
        *(finding for service in services for finding in _deaf(service.durables(), service.name, {*facts, *orders})),
    ]


def heard_in(service: Service) -> set[type[Fact]]:
    """The facts that a reaction or a read model's rule of the service hears."""
    found = {one.fact for one in service.reactions}
    return found | {cls for model in service.read_models for rule in model.rules for cls in rule.types}


@cache
def folded_in(package: str) -> frozenset[str]:
    """Names that the package's sources match, compare or list; what they only make is not looked for.

    A package whose sources are not there looks for nothing.
    """
    return frozenset().union(*(_looked_for(tree) for tree in _sources(package)))


@cache
def sent_from(package: str) -> frozenset[str]:
    """Names that the package's sources call: the orders among them are sent from there."""
    calls = [node.func for tree in _sources(package) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return frozenset(one.id for one in calls if isinstance(one, ast.Name))


def _sources(package: str) -> Iterator[ast.AST]:
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for file in sorted(Path(folder).rglob("*.py")):
            yield ast.parse(file.read_text())


def _looked_for(tree: ast.AST) -> set[str]:
    made = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    notes = [getattr(node, name, None) for node in ast.walk(tree) for name in ("annotation", "returns")]
    made |= {id(part) for note in notes if note is not None for part in ast.walk(note)}
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute) and id(node) not in made]
    return {one.id if isinstance(one, ast.Name) else one.attr for one in names}


def _unheard(services: Sequence[Service], facts: set[type[Fact]]) -> Iterator[Finding]:
    heard = {cls for service in services for cls in heard_in(service)}
    folded = folded_in("sparring.client").union(*(folded_in(service.package) for service in services))
    sent = frozenset[str]().union(*(sent_from(asker) for asker in ASKERS))
    asked = {(cls.owner, cls.entity) for cls in ORDERS.values() if cls.__name__ in sent}
    for cls in sorted(facts - heard, key=lambda one: one.__name__):
        answers = cls.__name__.endswith("Refused") and (cls.owner, cls.entity) in asked
        # the kernel itself folds which settings a service adopted, and what was archived
        known = (
            cls.__name__ in folded
            or cls.entity == "settings"
            or cls.owner == "archivist"
            or cls.owner.startswith("ext-")
        )
        if not (answers or known):
            yield Finding("warning", f"fact {cls.__name__}", f"nobody hears {filter_of(cls)}",
                          "give it a read model's rule, a reaction or a place in a picture; or stop saying it")  # fmt: skip


def _disobeyed(services: Sequence[Service], orders: set[type[Order]]) -> Iterator[Finding]:
    obeyed = [command.order for service in services for command in service.commands]
    for cls in sorted(orders, key=lambda one: one.__name__):
        times = obeyed.count(cls)
        if times == 0 and cls.owner != AGENTS:
            yield Finding("critical", f"order {cls.__name__}", f"nobody obeys {filter_of(cls)}",
                          f"list a Command for it in the service {cls.owner}")  # fmt: skip
        if times > 1:
            yield Finding("critical", f"order {cls.__name__}", f"{times} commands obey it", "keep its owner's one")
    for service in services:
        for command in service.commands:
            if command.order.owner != service.name or command.decider.owner != service.name:
                yield Finding("critical", f"service {service.name}", f"obeys {command.order.__name__}, an order to {command.order.owner}",
                              "only the owner appends facts of an entity: move the command there")  # fmt: skip


def _strangers(services: Sequence[Service], facts: set[type[Fact]]) -> Iterator[Finding]:
    for service in services:
        wanted = {one.fact for one in service.reactions} | {
            cls for model in service.read_models for rule in model.rules for cls in rule.types
        }
        for cls in sorted(wanted - facts, key=lambda one: one.__name__):
            yield Finding("critical", f"service {service.name}", f"waits for {cls.__name__}, which no contract declares",
                          "declare it in its owner's contracts, or stop waiting")  # fmt: skip


def _deaf(durables: Sequence[Durable], owner: str, messages: Collection[type[Message]]) -> Iterator[Finding]:
    for durable in durables:
        if durable.stream not in (EVENTS, COMMANDS):
            continue
        for pattern in durable.filters:
            # an owner without orders still listens for those that a later build may send
            if not pattern.startswith("retry.") and not matches_a_contract(pattern, messages):
                yield Finding("warning", f"consumer {durable.name}", f"its filter {pattern} matches no contract",
                              f"correct the filter in {owner}, or declare the message")  # fmt: skip
