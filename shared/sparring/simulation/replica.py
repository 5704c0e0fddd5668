"""One running replica of a service: what the shell is in production, on virtual time."""

from __future__ import annotations

import json
import math
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparring import __version__
from sparring.binding import Handlers, Repeats, adoption, obeying, order_id, unknown
from sparring.contracts import fingerprint
from sparring.contracts.base import Fact, Order
from sparring.contracts.readings import ServiceBeat
from sparring.decider import Action, Append, Context, Picture, Reading, Recorded, Watch
from sparring.entity_store import Because
from sparring.envelope import Envelope, check_expiry
from sparring.errors import LogUnavailable, ReadModelBehind, SparringError
from sparring.hearing import NoPicture
from sparring.service import Service
from sparring.together import joined, side_by_side

if TYPE_CHECKING:
    from sparring.simulation.cluster import Cluster

BEAT_S = 5.0


class Heard(Mapping[str, Reading]):
    """The last readings that a process has heard, each made when it is asked for."""

    def __init__(self, voices: Mapping[str, Any], now: float, heard_until: float) -> None:
        self._voices, self._now, self._until = voices, now, min(now, heard_until)
        self._all: list[Reading] | None = None

    def _aged(self, reading: Reading | None) -> Reading | None:
        late = self._now - self._until
        return replace(reading, age_s=reading.age_s + late) if reading is not None and late > 0 else reading

    def __getitem__(self, subject: str) -> Reading:
        found: Reading | None = self.get(subject)
        if found is None:
            raise KeyError(subject)
        return found

    def get(self, subject: str, default: Any = None) -> Any:
        voice = self._voices.get(subject)
        found = self._aged(voice.reading(self._until)) if voice is not None else None
        return default if found is None else found

    def __iter__(self) -> Iterator[str]:
        return (subject for subject, voice in self._voices.items() if voice.reading(self._until) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def values(self) -> Any:
        if self._all is None:
            found = (self._aged(voice.reading(self._until)) for voice in self._voices.values())
            self._all = [one for one in found if one is not None]
        return self._all


class Replica:
    """`artifacts` and `hearing` are what a command's `gather` finds at its shell."""

    def __init__(self, cluster: Cluster, service: Service, number: int) -> None:
        self.cluster, self.service, self.name = cluster, service, f"r{number}"
        self.settings = service.settings(**cluster.setup.settings.get(service.name, {}))
        self.settings_hash = self.settings.fingerprint()
        self.source = f"{service.name}/{self.name}"
        self.handlers = Handlers(service)
        self.artifacts, self.hearing = cluster.store, self
        pace = cluster.setup.pace
        self.tick_s = pace.ticks.get(service.name) or pace.tick_s or service.tick_s
        self.skew_s = 0.0
        self.up = False
        self.cut_at = math.inf
        self.frozen = False
        self._beats: dict[bool, ServiceBeat] = {}
        self._begin()

    def _begin(self) -> None:
        self.picture: Picture = self.service.picture() if self.service.picture else NoPicture()
        self.position = self.planned_to = 0
        self.planned_at = -math.inf
        self.repeats = Repeats()
        self.started_at = self.connected_at = self.cluster.timeline.now
        self._hear_due = False

    # ---- life

    @property
    def working(self) -> bool:
        return self.up and self.cut_at == math.inf

    @property
    def leads(self) -> bool:
        return self in self.cluster.leads[self.service.name]

    def start(self, checkpoint: str = "") -> None:
        """Begins with nothing, or with a picture's checkpoint, and reads the log from there."""
        self._begin()
        if checkpoint:
            data = json.loads(checkpoint)
            self.picture.load(data["picture"])
            self.position = data["position"]
        self.up, self.cut_at, self.frozen = True, math.inf, False
        self.carry_out(adoption(self.service, self.settings))
        self.hear()

    def crash(self) -> str:
        """Ends at once; returns what a checkpoint of this moment would have held."""
        self.up = False
        return json.dumps({"picture": self.picture.dump(), "position": self.position})

    def cut_off(self) -> None:
        self.cut_at = min(self.cut_at, self.cluster.timeline.now)

    def rejoin(self) -> None:
        if self.cut_at < math.inf:
            self.cut_at, self.connected_at = math.inf, self.cluster.timeline.now
            self.hear()

    def reading(self, now: float) -> Reading | None:
        """This process's own beat."""
        if not self.up or now < self.started_at:
            return None
        until = min(now, self.cut_at)
        known = self._beats.get(self.leads)
        age_s = now - (self.started_at + BEAT_S * math.floor((until - self.started_at) / BEAT_S))
        if known is None:
            known = self._beats[self.leads] = ServiceBeat.model_construct(
                service=self.service.name, replica=self.name, build=__version__, contracts=fingerprint(),
                leader=self.leads, position=0, log_end=0, handled=0, failed=0, redelivered=0, loop_lag_s=0.0,
                up_s=0.0, rss_bytes=0, settings_hash=self.settings_hash,
            )  # fmt: skip
        return Reading(known, age_s)

    # ---- what decisions may look at

    def context(self) -> Context:
        now = self.cluster.timeline.now
        connected_s = now - self.connected_at if self.cut_at == math.inf else 0.0
        return Context(
            now=self.cluster.timeline.instant(self.skew_s), settings=self.settings, settings_hash=self.settings_hash,
            picture=self.picture, read_to=self.position, readings=Heard(self.cluster.voices, now, self.cut_at),
            watch=Watch(connected_s, now - self.started_at),
        )  # fmt: skip

    async def reached(self, sequence: int, within_s: float = 5.0) -> None:  # noqa: ARG002
        """Raises ReadModelBehind while the picture does not hold the fact; virtual time does not pass here."""
        if self.position < sequence:
            raise ReadModelBehind(f"read up to {self.position}, the fact is {sequence}")

    # ---- hearing and planning

    def told(self) -> None:
        """There are facts: they are heard together a moment later."""
        if not self._hear_due and self.up:
            self._hear_due = True
            self.cluster.timeline.after(self.cluster.setup.pace.settle_s, self._hear_later, self.started_at)

    def _hear_later(self, life: float) -> None:
        if life == self.started_at and self.up:
            self._hear_due = False
            self.hear()

    def hear(self) -> None:
        if self.frozen or not self.working:
            return
        for one in self.cluster.ledger.after(self.position):
            self.picture.apply(one)
            self.position = one.sequence
        if self.service.name not in self.cluster.setup.pace.ticked:
            self.plan()

    def tick(self) -> None:
        if self.cluster.timeline.now - self.planned_at >= self.tick_s - 1e-9:
            self.plan()

    def plan(self) -> None:
        """As the shell: only while it leads and has heard what it decided itself; a failure is repeated by the tick."""
        plan = self.service.plan
        if plan is None or not self.working or not self.leads or self.position < self.planned_to:
            return
        self.planned_at = self.cluster.timeline.now
        context = self.context()
        for chain in side_by_side(joined(plan(context), context.now)):
            try:
                for action in chain:
                    self.planned_to = max(self.planned_to, self.carry_out(action))
            except LogUnavailable:
                self.cluster.chronicle.count("plans cut short")

    def carry_out(self, action: Action, cause: str = "") -> int:
        """Appends or sends; returns the last sequence that it appended, 0 for none."""
        if isinstance(action, Append):
            now = self.cluster.timeline.instant(self.skew_s)
            because = Because(self.source, now, "", "", cause, action.correlation)
            return self._appended(self.cluster.ledger.execute(action.entities, action.decide, because).facts)
        if self.repeats.due(action, self.cluster.timeline.now):
            id = order_id(action.order, action.key)
            self.cluster.publish(action.order, id, self.source, cause=cause, correlation=action.correlation,
                                 expires_s=action.expires_s)  # fmt: skip
            self.repeats.sent(action, self.cluster.timeline.now)
        return 0

    def _appended(self, facts: tuple[Recorded, ...]) -> int:
        if facts and self.cluster.weather.loses_acknowledgement():
            raise LogUnavailable("the append's acknowledgement was lost")
        return facts[-1].sequence if facts else 0

    # ---- orders and reactions

    def handle(self, message: Order | Fact, envelope: Envelope, recorded: Recorded | None = None) -> None:
        """Raises what the delivery table knows."""
        if isinstance(message, Order):
            self._obey(message, envelope)
        elif recorded is not None:
            reaction = self.handlers.reaction(message)
            finished(self.reached(recorded.sequence))
            for action in reaction.react(recorded, self.context()):
                self.carry_out(action, cause=recorded.id)

    def _obey(self, order: Order, envelope: Envelope) -> None:
        context = self.context()
        check_expiry(envelope, context.now)
        command, ledger = self.handlers.command(order), self.cluster.ledger
        if not command.mints and not ledger.exists(command.decider, order.id):
            raise unknown(order)
        gathered = finished(command.gather(order, self)) if command.gather else None
        context = replace(context, id=envelope.id, gathered=gathered)
        what = obeying(command, order, envelope, context, self.source)
        self._appended(ledger.execute(what.entities, what.decide, what.because).facts)


def finished(waiting: Any) -> Any:
    """The result of a coroutine that never waits: on virtual time nothing does."""
    assert isinstance(waiting, Coroutine)
    try:
        waiting.send(None)
    except StopIteration as end:
        return end.value
    waiting.close()
    raise SparringError(f"{waiting} waits for real time; the simulator can't run it")
