"""What a service is, as data: its orders, reactions, planner and read models; the shell and the simulator run it."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from sparring.contracts.base import Fact
from sparring.decider import Command, Decider, Picture, Plan, Reaction, Recorded
from sparring.read_model import ReadModel
from sparring.streams import Durable, service_durables
from sparring.subjects import filter_of


class ServiceSettings(BaseModel):
    """A service's numbers, each with its unit in the name or type; frozen, unknown fields refused.

    Values come from `[<service>]` in the TOML file and from `SPARRING_<SERVICE>__<FIELD>`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def fingerprint(self) -> str:
        """The hash that decisions name: 12 hex digits of the SHA-256 of the values."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


Worker = Callable[[Any], Awaitable[None]]
# a fact that ends a trace -> the root span's name, its start and its attributes
Trace = Callable[[Recorded], tuple[str, datetime, Mapping[str, Any]]]


@dataclass(frozen=True)
class Question:
    """What a service can be asked without asking it: `answer(context, **asked)` over its own picture.

    Whoever reads folds the picture for itself, so that it answers while the service is down, and at any moment.
    `hears` are the subjects whose facts suffice; () is all. `answer` must be pure; it raises BadInput for what is unknown
    and CannotAnswer when it lacks what it needs.
    """

    answer: Callable[..., Any]
    hears: tuple[str, ...] = ()


@dataclass(frozen=True)
class Service:
    """One owner of one kind of decision.

    `plan` runs in the replica that holds the service's lease: after every batch of facts that `picture` took in, and
    at least every `tick_s` seconds. It is level-triggered: it looks at the picture, never at what happened last.
    `traces` names the facts that close an iteration: its root span is written then.
    `workers` are coroutines of the shell for I/O that no message starts.
    `readings` are the telemetry subjects whose last readings its decisions look at; nothing else is heard.
    `handler_s` is how long one order may take, at least: health widens it while handlers use it up. `ordered` handles one
    message at a time: a later one waits until the earlier one is handled or given up.
    """

    name: str
    settings: type[ServiceSettings]
    commands: Sequence[Command]
    picture: Callable[[], Picture] | None = None
    plan: Plan | None = None
    tick_s: float = 1.0
    reactions: Sequence[Reaction] = ()
    read_models: Sequence[ReadModel] = ()
    readings: Sequence[str] = ()
    workers: Sequence[Worker] = ()
    traces: Mapping[type[Fact], Trace] = field(default_factory=dict)
    questions: Mapping[str, Question] = field(default_factory=dict)
    handler_s: float = 30.0
    ordered: bool = False

    def durables(self) -> list[Durable]:
        """The consumers that the service pulls from."""
        filters = tuple(filter_of(one.fact) for one in self.reactions)
        return service_durables(self.name, filters, ordered=self.ordered)

    @property
    def package(self) -> str:
        return self.name.replace("-", "_")


def _adopted(state: str, recorded: Recorded) -> str:
    return str(getattr(recorded.fact, "hash", state))


def settings_decider(service: str) -> Decider[str]:
    """The settings that a service runs under: their hash."""
    return Decider(service, "settings", "", _adopted)
