"""Keeps the games of every open gate coming, takes in what was played, ends what takes too long."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from pydantic import ValidationError

from lifecycle.core.by_hand import let_go
from lifecycle.core.decide import abandon, close, record, regress
from lifecycle.core.evolve import LANE, evolve, severity
from lifecycle.core.state import Gate, Lane
from sparring.apart import apart
from sparring.contracts.base import Fact, Order
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.lifecycle import (
    AbandonMatch,
    CloseGate,
    EvaluationRequested,
    FenceRaised,
    MeasurementFinished,
    RecordMatch,
)
from sparring.contracts.pipeline import LaneEdited, LaneRegistered
from sparring.contracts.selfplay_orch import RequestTask, TaskAbandoned, TaskCancelled, TaskFinished, TaskRequested
from sparring.contracts.training_slots import (
    HoldLaneBack,
    LaneHeldBack,
    SlotClaimed,
    SlotPreempted,
    SlotReleased,
)
from sparring.decider import Action, Append, Context, Recorded, Send
from sparring.picture import StoredPicture
from sparring.subjects import Ref
from sparring.task_specs import KindNotOffered, task_spec

REGRESSION = "regression"


@dataclass
class Everything:
    """By lane: `claimed` is the newest training slot's token, `ended` that of the slot before it where its holder gave it
    back, `released` that of a slot given back which nobody claimed since; `worse` the hold that a regression asks for."""

    lanes: dict[str, Lane] = field(default_factory=dict)
    specs: dict[str, LaneSpec] = field(default_factory=dict)
    requested: dict[str, str] = field(default_factory=dict)
    finished: dict[str, TaskFinished] = field(default_factory=dict)
    given_up: dict[str, str] = field(default_factory=dict)
    claimed: dict[str, int] = field(default_factory=dict)
    released: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    worse: dict[str, HoldLaneBack] = field(default_factory=dict)


class ModelsPicture(StoredPicture[Everything]):
    """All lanes' models and gates, and the evaluation tasks of open gates."""

    kind = Everything

    def apply(self, recorded: Recorded) -> None:
        everything, fact = self.all, recorded.fact
        if fact.owner == "lifecycle" and fact.entity == "lane":
            everything.lanes[fact.id] = evolve(everything.lanes.get(fact.id, Lane()), recorded)
        match fact:
            case LaneRegistered(lane=lane, spec=spec) | LaneEdited(lane=lane, spec=spec):
                everything.specs[lane] = spec
            case TaskRequested(task=task, spec=spec) if spec.gate:
                everything.requested[task] = spec.gate
            case TaskFinished(task=task, superseded=False) as finished if task in everything.requested:
                everything.finished[task] = finished
            case TaskAbandoned(task=task, reason=reason) if task in everything.requested:
                everything.given_up[task] = reason
            case TaskCancelled(task=task, reason=reason) if task in everything.requested:
                everything.given_up[task] = reason
            case SlotReleased(lane=lane, token=token) | SlotPreempted(lane=lane, token=token, gave_way=True):
                everything.released[lane] = token
            case SlotClaimed(lane=lane):
                everything.claimed[lane] = recorded.sequence
                everything.ended[lane] = everything.released.pop(lane, 0)
            case MeasurementFinished(lane=lane) as measured:
                self._measured(lane, measured, recorded)
            case LaneHeldBack(lane=lane, cause="regression"):
                everything.worse.pop(lane, None)
        self._forget(fact)

    def _measured(self, lane: str, measured: MeasurementFinished, recorded: Recorded) -> None:
        found = severity(measured)
        if found is None:
            return
        name, points = found
        reason = f"{measured.gate}: {points:.1%} of the points worse than {measured.baseline[:12]}"
        self.all.worse[lane] = HoldLaneBack(
            lane=lane, cause=REGRESSION, severity=name, reason=reason, for_s=0, by="lifecycle",
            revision=int(recorded.at.timestamp() * 1000),
        )  # fmt: skip

    def _forget(self, fact: Fact) -> None:
        said = vars(fact)
        task = str(said.get("task", ""))
        done = fact.owner == "lifecycle" and (said.get("final", False) or type(fact).__name__ == "MatchRefused")
        if done and task in self.all.requested:
            for book in (self.all.requested, self.all.finished, self.all.given_up):
                book.pop(task, None)


def plan(ctx: Context) -> Sequence[Action]:
    """Gates are looked at apart: what goes wrong with one of them stops none of the others."""
    picture: ModelsPicture = ctx.picture
    actions: list[Action] = []
    for name, newest in picture.all.claimed.items():
        # who gave the slot back has ended: its model may be on its way; who lost it is stale from now on
        token = picture.all.ended.get(name) or newest
        if token > picture.all.lanes.get(name, Lane()).highest_token:
            actions.append(_append(name, "", partial(_fence, name, token)))
    for name, order in picture.all.worse.items():
        hold = order.model_copy(update={"for_s": ctx.settings.hold_s})
        actions.append(Send(hold, key=f"hold-{name}-{order.revision}"))
    for name, lane in picture.all.lanes.items():
        spec = picture.all.specs.get(name)
        for gate in lane.open_gates:
            actions += apart(LANE, name, partial(_gate, ctx, name, spec, gate, picture))
        if lane.passed and spec is not None and "promote" in spec.auto:
            waits = max(lane.passed, key=lambda model: lane.models[model].number)
            let = partial(let_go, lane.passed[waits], ctx=ctx, name=name)
            actions.append(_append(name, lane.models[waits].iteration, let))
        actions += apart(LANE, name, partial(_regressed, ctx, name, lane))
    return actions


def _regressed(ctx: Context, name: str, lane: Lane) -> Iterable[Action]:
    if regress(name, lane, ctx):
        plays = lane.models.get(lane.production)
        yield _append(name, plays.iteration if plays else "", lambda now: regress(name, now, ctx))


def _fence(name: str, token: int, lane: Lane) -> Sequence[Fact]:
    """The next holder trains: a model of one that lost its slot is late from now on, on this lane's own sequence."""
    return [FenceRaised(lane=name, token=token)] if token > lane.highest_token else []


def _append(lane: str, iteration: str, decide: Callable[[Lane], Sequence[Fact]]) -> Append:
    ref = LANE.ref(lane)

    def on_states(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        return decide(states[ref])

    return Append([(LANE, lane)], on_states, correlation=iteration)


def _obey(ctx: Context, gate: Gate, order: Any, decide: Callable[[Any, Lane, Context], Sequence[Fact]]) -> Append:
    return _append(order.lane, gate.iteration, lambda state: decide(order, state, ctx))


def _gate(ctx: Context, lane: str, spec: LaneSpec | None, gate: Gate, picture: ModelsPicture) -> Iterable[Action]:
    if ctx.now > gate.opened_at + timedelta(seconds=ctx.settings.gate_s):
        order = CloseGate(lane=lane, gate=gate.gate, reason="the gate's deadline passed")
        yield _obey(ctx, gate, order, close)
        return
    for name, task in gate.tasks.items():
        if not task.open:
            continue
        finished, lost = picture.all.finished.get(name), picture.all.given_up.get(name)
        if finished is not None:
            yield _taken_in(ctx, lane, gate, name, finished)
        elif lost is not None:
            yield _obey(ctx, gate, AbandonMatch(lane=lane, gate=gate.gate, task=name, reason=lost), abandon)
        elif name not in picture.all.requested and spec is not None:
            yield _asked_for(ctx, spec, gate, name, picture)
    if spec is not None:
        yield from _more(lane, spec, gate)


def _taken_in(ctx: Context, lane: str, gate: Gate, task: str, finished: TaskFinished) -> Append:
    """What the evaluation says it played; what can't be read counts as not played, and says why."""
    told = {name: finished.evidence[name] for name in ("counts", "games", "settings") if name in finished.evidence}
    try:
        order = RecordMatch.model_validate({"lane": lane, "gate": gate.gate, "task": task, "settings": {}} | told)
    except ValidationError as error:
        reason = f"the evaluation finished without counts: {_first(error)}"
        return _obey(ctx, gate, AbandonMatch(lane=lane, gate=gate.gate, task=task, reason=reason), abandon)
    return _obey(ctx, gate, order, record)


def _first(error: ValidationError) -> str:
    """The first field that is not what it has to be, with its value."""
    first = error.errors()[0]
    value = "" if first["type"] == "missing" else f" = {first['input']!r}"
    return f"{'.'.join(str(part) for part in first['loc'])}{value[:80]}: {first['msg']}"


def _more(lane: str, spec: LaneSpec, gate: Gate) -> Iterable[Action]:
    """The next task of the gate, while fewer than `parallel_tasks` play and the cap is not reached."""
    if sum(task.open for task in gate.tasks.values()) >= gate.rules.parallel_tasks:
        return
    pairs = min(spec.gate.pairs_per_task, gate.most_pairs - gate.asked)
    if pairs <= 0:
        return
    fact = EvaluationRequested(
        lane=lane,
        gate=gate.gate,
        task=f"{gate.gate}-e{len(gate.tasks) + 1}",
        pairs=pairs,
        opening_offset=gate.next_offset,
    )

    def decide(state: Lane) -> Sequence[Fact]:
        now = state.gates.get(gate.gate)
        return [fact] if now is not None and not now.closed and len(now.tasks) == len(gate.tasks) else []

    yield _append(lane, gate.iteration, decide)


def _asked_for(ctx: Context, spec: LaneSpec, gate: Gate, name: str, picture: ModelsPicture) -> Action:
    task = gate.tasks[name]
    try:
        return _request(ctx, spec, gate, name, task.pairs, task.offset, picture)
    except KindNotOffered as error:
        return _obey(ctx, gate, AbandonMatch(lane=spec.name, gate=gate.gate, task=name, reason=str(error)), abandon)


def openings_seed(gate: str) -> int:
    """All tasks of a gate draw from one set of openings."""
    return int.from_bytes(hashlib.sha256(f"openings {gate}".encode()).digest()[:4], "big") >> 1


def _request(
    ctx: Context, spec: LaneSpec, gate: Gate, task: str, pairs: int, offset: int, picture: ModelsPicture
) -> Send:
    models = picture.all.lanes[spec.name].models
    inputs = {"candidate": (models[gate.candidate].artifact,)}
    if gate.baseline:
        inputs["baseline"] = (models[gate.baseline].artifact,)
    work = {
        "pairs": pairs,
        "opening_offset": offset,
        "openings_seed": openings_seed(gate.gate),
        "opening_plies": gate.rules.opening_plies,
        "simulations": gate.rules.simulations,
        "baseline_kind": "model",
    }
    built = task_spec(
        spec,
        "evaluate",
        task,
        timeout_s=ctx.settings.evaluate_s,
        work=work,
        inputs=inputs,
        iteration=gate.iteration,
        model=gate.candidate,
        gate=gate.gate,
    )
    order: Order = RequestTask(task=task, spec=built, by="lifecycle")
    return Send(order, key=f"request-{task}", correlation=gate.iteration)
