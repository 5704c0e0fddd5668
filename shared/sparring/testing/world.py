"""A service's planner against a log in memory: pictures over it, appends guarded as the entity store guards them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sparring.contracts.base import Fact
from sparring.decider import Append, Context, Picture, Plan, Reading, Recorded, Send, Watch
from sparring.envelope import Envelope, headers_of
from sparring.log.interface import Expect, Outgoing
from sparring.log.memory import MemoryLog
from sparring.subjects import Ref, ref_of, subject_of
from sparring.testing.scenario import at


class World:
    """Facts in order; `now` in seconds since the start; planners may be stale."""

    def __init__(self, make_picture: Callable[[], Picture], plan: Plan, settings: Any, *facts: Fact) -> None:
        self._make_picture, self._plan, self._settings = make_picture, plan, settings
        self.log, self.facts, self.now = MemoryLog(), list[Recorded](), 0.0
        self.sent: list[Send] = []
        self._ends: dict[Ref, int] = {}
        self.readings: Mapping[str, Reading] = {}
        self.watch = Watch(1_000.0, 1_000.0)
        self.add(*facts)

    def add(self, *facts: Fact, expect: Mapping[Ref, int] | None = None) -> None:
        """Appends the facts as one batch; raises LostRace when an expectation fails."""
        if not facts:
            return
        seen: set[Ref] = set()
        batch = []
        for fact in facts:
            ref = ref_of(fact)
            known = expect[ref] if expect is not None else self._ends.get(ref, 0)
            guard = None if ref in seen else Expect(ref.pattern, known)
            seen.add(ref)
            headers = headers_of(fact, Envelope("", "world", at(self.now)))
            headers.pop("Nats-Msg-Id")
            batch.append(Outgoing(subject_of(fact), headers, fact.model_dump_json().encode(), guard))
        sequences = self.log.append_now(batch, f"batch-{len(self.facts)}")
        self.facts += [Recorded(s, at(self.now), f) for s, f in zip(sequences, facts, strict=True)]
        self._ends |= {ref_of(fact): sequence for sequence, fact in zip(sequences, facts, strict=True)}

    def context(self, up_to: int | None = None) -> Context:
        """What a planner that has read the first `up_to` facts knows."""
        picture = self._make_picture()
        read = self.facts[: up_to if up_to is not None else len(self.facts)]
        for one in read:
            picture.apply(one)
        return Context(
            now=at(self.now), settings=self._settings, picture=picture, read_to=read[-1].sequence if read else 0,
            readings=self.readings, watch=self.watch,
        )  # fmt: skip

    def carry_out(self, action: Append) -> bool:
        """As the entity store does: fresh states, one guarded batch. Says whether there were facts."""
        states: dict[Ref, Any] = {}
        ends: dict[Ref, int] = {}
        for decider, id in action.entities:
            ref, state = decider.ref(id), decider.initial
            own = [one for one in self.facts if ref_of(one.fact) == ref]
            for one in own:
                state = decider.evolve(state, one)
            states[ref], ends[ref] = state, own[-1].sequence if own else 0
        facts = action.decide(states)
        self.add(*facts, expect=ends)
        return bool(facts)

    def tick(self, seconds: float = 0.0, *, up_to: int | None = None, times: int = 1) -> None:
        """Lets time pass, plans, and carries everything out."""
        self.now += seconds
        for _ in range(times):
            for action in self._plan(self.context(up_to)):
                if isinstance(action, Append):
                    self.carry_out(action)
                else:
                    self.sent.append(action)

    def of(self, *kinds: type[Fact]) -> list[Any]:
        """The facts of these classes, in order."""
        return [one.fact for one in self.facts if isinstance(one.fact, kinds)]

    def orders(self, kind: type[Any]) -> list[Any]:
        """The orders of that class that were sent, each key once."""
        found = {send.key: send.order for send in self.sent if isinstance(send.order, kind)}
        return list(found.values())
