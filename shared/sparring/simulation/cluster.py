"""A whole cluster on virtual time: services, nodes, the orders between them and the log."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sparring.catalogue import services
from sparring.contracts.base import Fact, Order
from sparring.contracts.health import DeadLetterRedriven, RecordDeadLetter, ReportRedriven
from sparring.contracts.parts import Check
from sparring.contracts.pipeline import RegisterLane
from sparring.contracts.sync import BatchRetired, ShardsRetired
from sparring.contracts.training_slots import SlotRenewed
from sparring.decider import Recorded
from sparring.delivery import Ack, GiveUp, Retry, disposition
from sparring.envelope import Envelope
from sparring.errors import Undecodable
from sparring.simulation.agents import Agent, Outcome
from sparring.simulation.chronicle import Chronicle
from sparring.simulation.learning import Strengths
from sparring.simulation.ledger import Ledger
from sparring.simulation.machines import fleet
from sparring.simulation.replica import Replica
from sparring.simulation.setup import Setup
from sparring.simulation.store import Store
from sparring.simulation.timeline import Timeline, rng_of
from sparring.simulation.watch import Watcher
from sparring.simulation.weather import Weather
from sparring.streams import COMMANDS
from sparring.subjects import Ref, ref_of, subject_of, token

DEDUPE_S, ACK_WAIT_S, AWAY_S, REDRIVE_S = 120.0, 60.0, 1.0, 0.5


@dataclass(slots=True)
class Message:
    """An order, or a fact that a service reacts to, on its way to `to`."""

    to: str
    body: Order | Fact
    envelope: Envelope
    number: int
    attempt: int = 1
    poison: bool = False
    letter: str = ""
    redrive: int = 0
    recorded: Recorded | None = None


class Cluster:
    """Everything follows from the setup: the same one gives the same log, byte for byte."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.timeline, self.store = setup, Timeline(), Store()
        self.weather = Weather(rng_of(setup.seed, "weather"), setup.pace)
        self.strengths = Strengths(setup.curve)
        self.chronicle = Chronicle(setup)
        self.watcher = Watcher(self) if setup.watched else None
        self.ledger = Ledger(self._on_append, keep=setup.keep_log)
        self._ids: dict[str, float] = {}
        self._answers: dict[Ref, list[tuple[Agent, Outcome]]] = {}
        self._letters: dict[str, Message] = {}
        self._numbers = 0
        self._wakes: set[tuple[str, int]] = set()
        self._on: dict[type[Fact], Callable[[Recorded], None]] = {
            SlotRenewed: self._on_renewed,
            BatchRetired: self._on_retired,
            ShardsRetired: self._on_retired,
            DeadLetterRedriven: self._on_redriven,
        }
        found = services()
        self.replicas: dict[str, list[Replica]] = {
            one.name: [Replica(self, one, number) for number in range(1, setup.replicas + 1)] for one in found
        }
        self.leads: dict[str, set[Replica]] = {name: {replicas[0]} for name, replicas in self.replicas.items()}
        self.agents = {
            one.name: Agent(self, one) for one in fleet(setup.nodes, setup.seats, rng_of(setup.seed, "fleet"))
        }
        self.voices: dict[str, Any] = {f"tel.{token(name)}.heartbeat": agent for name, agent in self.agents.items()}
        for name, replicas in self.replicas.items():
            for replica in replicas:
                self.voices[f"tel.{token(f'svc-{name}-{replica.name}')}.heartbeat"] = replica
        self._every = [one for replicas in self.replicas.values() for one in replicas]
        self._begin()

    # ---- life

    def _begin(self) -> None:
        for replica in self._every:
            self.timeline.at(0.0, replica.start)
            self._tick_later(replica)
        spread = min(60.0, max(5.0, self.setup.nodes / 100))
        for number, agent in enumerate(self.agents.values()):
            self.timeline.at(1.0 + spread * number / max(1, len(self.agents)), self.boot, agent, 0)
        for lane in self.setup.lanes:
            self.publish(RegisterLane(lane=lane.name, spec=lane), f"lane-{lane.name}", "operator")

    def _tick_later(self, replica: Replica) -> None:
        self.timeline.after(replica.tick_s, self._tick, replica)

    def _tick(self, replica: Replica) -> None:
        replica.tick()
        if replica.service.name == "sync":
            # what its worker does in production
            replica.picture.undeleted.clear()  # type: ignore[attr-defined]
        if replica is self._every[0]:
            self.ledger.forget(min(one.position for one in self._every))
            if self.watcher is not None:
                self.watcher.look()
        self._tick_later(replica)

    def node_moved(self) -> None:
        """A node came, was cut off or went: whoever is woken by that looks at the full second when something follows."""
        for name, seconds in self.setup.pace.woken.items():
            for moment in (math.ceil(self.timeline.now) + one for one in seconds):
                if (name, moment) not in self._wakes:
                    self._wakes.add((name, moment))
                    self.timeline.at(moment, self._wake, name, moment)

    def _wake(self, name: str, moment: int) -> None:
        self._wakes.discard((name, moment))
        for replica in self.replicas[name]:
            replica.hear()
            replica.plan()

    def boot(self, agent: Agent, life: int) -> None:
        """Starts the agent, unless it has lived on since that life."""
        if agent.life != life or (life and agent.alive):
            return
        agent.start()
        self.chronicle.node_here(agent.name, self.timeline.now)
        rng = rng_of(self.setup.seed, "life", agent.name, agent.life)
        ephemeral = agent.machine.kind.ephemeral
        leaves_s = self.setup.churn.next_s(ephemeral, rng)
        if leaves_s < float("inf"):
            away_s = rng.expovariate(1 / self.setup.churn.away_s)
            self.timeline.after(leaves_s, self._leave, agent, agent.life, self.setup.churn.how(ephemeral, rng), away_s)

    def _leave(self, agent: Agent, life: int, how: str, away_s: float) -> None:
        if agent.life == life and agent.alive:
            self.leave(agent, how, away_s)

    def leave(self, agent: Agent, how: str, away_s: float) -> None:
        """The node goes, in one of the ways that nodes go, and comes back later."""
        self.chronicle.departure(agent.name, how, self.timeline.now)
        match how:
            case "notice":
                agent.drain(120.0, then_s=away_s, disk_lost=True)
            case "restarted":
                agent.die(disk_lost=False)
                self.timeline.after(min(away_s, 3.0), self.boot, agent, agent.life)
            case _:
                agent.die(disk_lost=agent.machine.kind.ephemeral)
                self.timeline.after(away_s, self.boot, agent, agent.life)

    def run(self, seconds: float) -> None:
        """Virtual seconds more."""
        self.timeline.run(self.timeline.now + seconds)

    def disturb(self, seconds: float) -> None:
        """Something goes wrong for that long: bounds count from its end."""
        if self.watcher is not None:
            self.watcher.disturbed(self.timeline.now + seconds)

    def unfolded(self) -> list[str]:
        """Entities whose state, folded anew from the log, is another one."""
        folded: dict[Ref, Any] = {}
        for one in self.ledger.facts:
            ref = ref_of(one.fact)
            entity = self.ledger.known(ref)
            if entity is not None:
                folded[ref] = entity.decider.evolve(folded.get(ref, entity.decider.initial), one)
        return [f"a fold is a fold: {ref} differs" for ref, entity in self.ledger.entities()
                if entity.sequence and folded.get(ref) != entity.state]  # fmt: skip

    # ---- orders

    def publish(
        self, order: Order, id: str, source: str, *, cause: str = "", correlation: str = "",
        expires_s: float | None = None,
    ) -> None:  # fmt: skip
        """Durably on its way; the same id within two minutes is the same message."""
        now, at = self.timeline.now, self.timeline.instant()
        if self._ids.get(id, -DEDUPE_S) > now - DEDUPE_S:
            return
        self._ids[id] = now
        if len(self._ids) > 50_000:
            self._ids = {one: sent for one, sent in self._ids.items() if sent > now - DEDUPE_S}
        until = at + timedelta(seconds=expires_s) if expires_s is not None else None
        self._numbers += 1
        message = Message(
            order.owner, order, Envelope(id, source, at, "", cause, correlation, "", until), self._numbers
        )
        message.poison = order.owner != "node-agent" and self.weather.poisons()
        self._on_its_way(message)
        if self.weather.doubles():
            self._on_its_way(replace(message, attempt=2))

    def _on_its_way(self, message: Message) -> None:
        if message.to == "node-agent":
            self.timeline.after(self.weather.delay(), self._to_node, message)
        else:
            self.timeline.after(self.weather.delay(), self._deliver, message)

    def _to_node(self, message: Message) -> None:
        agent = self.agents.get(message.body.id)
        if agent is None or not isinstance(message.body, Order):
            return
        until = message.envelope.expires_at
        if until is None or self.timeline.instant() <= until:
            agent.on_order(message.envelope.id, message.body)

    def _deliver(self, message: Message) -> None:
        """To a replica that works; while none does, it waits in the stream and no attempt is burnt."""
        ready = [one for one in self.replicas[message.to] if one.working]
        if not ready:
            self.timeline.after(AWAY_S, self._deliver, message)
            return
        replica = ready[message.number % len(ready)]
        error: Exception | None = None
        try:
            if message.poison:
                raise Undecodable(f"{subject_of(message.body)}: the body is not JSON")
            replica.handle(message.body, message.envelope, message.recorded)
        # whatever a handler raises is the delivery table's business, as in the middleware
        except Exception as raised:  # noqa: BLE001
            error = raised
        self._disposed(message, error)

    def _disposed(self, message: Message, error: Exception | None) -> None:
        match disposition(error, message.attempt):
            case Ack():
                if message.letter:
                    self._redriven(message, "")
                elif self.weather.loses_acknowledgement():
                    message.attempt += 1
                    self.timeline.after(ACK_WAIT_S, self._deliver, message)
            case Retry(delay_s=delay_s):
                message.attempt += 1
                self.timeline.after(delay_s, self._deliver, message)
            case GiveUp(reason=reason, transient=transient):
                self.chronicle.count(f"given up: {type(error).__name__}")
                if message.letter:
                    self._redriven(message, reason)
                else:
                    self._bury(message, reason, type(error).__name__, transient=transient)

    # ---- dead letters: what the keeper's workers do in production

    def _bury(self, message: Message, reason: str, exception: str, *, transient: bool) -> None:
        letter = f"{message.to}-{COMMANDS}-{message.number}"
        self._letters[letter] = message
        order = RecordDeadLetter(
            letter=letter, consumer=message.to, stream=COMMANDS, stream_sequence=message.number,
            subject=subject_of(message.body), message_type=type(message.body).__name__,
            cause="max_deliver" if transient else "terminated", transient=transient, reason=reason,
            exception=exception, fingerprint=exception, deliveries=message.attempt, trace="",
        )  # fmt: skip
        self.publish(order, f"letter-{letter}", "keeper")

    def _on_redriven(self, one: Recorded) -> None:
        fact = one.fact
        assert isinstance(fact, DeadLetterRedriven)
        original = self._letters.get(fact.letter)
        if original is not None:
            again = replace(original, attempt=1, letter=fact.letter, redrive=fact.attempt)
            self.timeline.after(REDRIVE_S, self._deliver, again)

    def _redriven(self, message: Message, reason: str) -> None:
        order = ReportRedriven(letter=message.letter, attempt=message.redrive, recovered=not reason, reason=reason)
        self.publish(order, f"redriven-{message.letter}-{message.redrive}", "keeper")

    # ---- facts

    def _on_append(self, facts: Sequence[Recorded]) -> None:
        for one in facts:
            self._to_reactions(one)
            answers = self._answers
            if answers:
                self._answer(one)
            react = self._on.get(type(one.fact))
            if react is not None:
                react(one)
            self.chronicle.apply(one, self.timeline.now)
            if self.watcher is not None:
                self.watcher.apply(one)
        for replica in self._every:
            replica.told()

    def _to_reactions(self, one: Recorded) -> None:
        for name, replicas in self.replicas.items():
            if replicas[0].service.reactions and replicas[0].handlers.reacts(one.fact):
                self._numbers += 1
                envelope = Envelope(one.id, "", one.at, one.order, one.cause, one.correlation)
                self._on_its_way(Message(name, one.fact, envelope, self._numbers, recorded=one))

    def _answer(self, one: Recorded) -> None:
        ref = ref_of(one.fact)
        waiting = self._answers.get(ref)
        if waiting is None:
            return
        left = [pair for pair in waiting if not (pair[1].seen or pair[0].on_answer(pair[1], one))]
        if left:
            self._answers[ref] = left
        else:
            del self._answers[ref]

    def await_answer(self, agent: Agent, outcome: Outcome) -> None:
        self._answers.setdefault(ref_of(outcome.order), []).append((agent, outcome))

    def answered(self, outcome: Outcome) -> bool:
        """Whether the log holds an answer already: asked after a partition, and before sending again."""
        entity = self.ledger.known(ref_of(outcome.order))
        if entity is None:
            return False
        if outcome.id in entity.orders:
            return True
        said = [entity.said[name] for name in outcome.names if name in entity.said]
        return any(attempt is None or attempt >= outcome.attempt for attempt in said)

    def _on_renewed(self, one: Recorded) -> None:
        assert isinstance(one.fact, SlotRenewed)
        for agent in self.agents.values():
            if agent.running and agent.reachable:
                agent.renewed(one.fact.token)

    def _on_retired(self, one: Recorded) -> None:
        for url in getattr(one.fact, "replicas", ()):
            self.store.delete(url)

    # ---- what agents ask for

    def check_of(self, evidence: dict[str, Any]) -> Check:
        return Check(ok=True, games=evidence["games"], positions=evidence["positions"], policy_coverage=1.0,
                     decisive_share=1 - self.setup.curve.draws, mean_plies=float(self.setup.work.positions),
                     duplicates=0.01)  # fmt: skip

    def note_run(self, agent: Agent, running: Any, wasted: bool) -> None:
        spec = running.order.spec
        self.chronicle.ran(agent.name, spec.lane, spec.kind, running.began, self.timeline.now, wasted)
