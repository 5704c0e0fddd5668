"""How each fact changes a lane's models and gates."""

from __future__ import annotations

from lifecycle.core.state import Gate, Lane, Model, ModelState, Task
from lifecycle.core.verdict import statistics
from sparring.contracts.lanes import GateRules
from sparring.contracts.lifecycle import (
    CurriculumRebalanced,
    EvaluationRequested,
    FenceRaised,
    GateDecided,
    GateOpened,
    MatchRecorded,
    MatchRefused,
    MeasurementFinished,
    MeasurementOpened,
    ModelPromoted,
    ModelRefused,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
)
from sparring.contracts.training_slots import Severity
from sparring.decider import Decider, Recorded, replace

CLOSED_KEPT = 20
# a lane with an iteration a minute registers ten thousand models in a week, and its state travels in one message
MODELS_KEPT = 1_000
STEPS_KEPT = 10
ELO_REGRESSION = -50.0


def evolve(lane: Lane, recorded: Recorded) -> Lane:
    match recorded.fact:
        case ModelRegistered() as fact:
            model = Model(fact.number, fact.artifact, fact.lineage.iteration, fact.lineage.task)
            token = max(lane.highest_token, fact.lineage.slot_token)
            models = lane.models | {fact.model: model}
            return _bounded(replace(lane, models=models, highest_token=token, numbered=fact.number))
        case ModelRefused(token=token) | FenceRaised(token=token):
            return replace(lane, highest_token=max(lane.highest_token, token))
        case GateOpened() as fact:
            gate = Gate(fact.gate, "gate", fact.candidate, fact.baseline, fact.iteration, recorded.at, fact.rules,
                        fact.rules.max_pairs, by_hand=fact.by_hand)  # fmt: skip
            return _with(lane, gate)
        case MeasurementOpened() as fact:
            rules = next((g.rules for g in reversed(lane.gates.values()) if g.candidate == fact.candidate), GateRules())
            made_in = lane.models[fact.candidate].iteration if fact.candidate in lane.models else ""
            gate = Gate(fact.gate, fact.purpose, fact.candidate, fact.baseline, made_in, recorded.at, rules, fact.pairs)
            return replace(_with(lane, gate), measurements=lane.measurements + 1)
        case EvaluationRequested(gate=name, task=task) as fact if name in lane.gates:
            return _with(lane, lane.gates[name].with_task(task, Task(fact.pairs, fact.opening_offset)))
        case MatchRecorded(gate=name, task=task) as fact if name in lane.gates:
            known = lane.gates[name].tasks.get(task, Task(sum(fact.counts), 0))
            return _with(lane, lane.gates[name].with_task(task, replace(known, counts=fact.counts, final=fact.final)))
        case MatchRefused(gate=name, task=task) if name in lane.gates and task in lane.gates[name].tasks:
            gate = lane.gates[name]
            return _with(lane, gate.with_task(task, replace(gate.tasks[task], abandoned=True)))
        case GateDecided(gate=name) as fact if name in lane.gates:
            lane = _closed(lane, name)
            if fact.by_hand:
                return _passed(lane, fact.candidate, name)
            elo = fact.statistics.elo if fact.statistics is not None else None
            return _stepped(lane, elo, plays=fact.verdict == "passed")
        case MeasurementFinished() as fact if fact.gate in lane.gates:
            return _measured(_closed(lane, fact.gate), fact)
        case ModelPromoted(model=model):
            lane = _answered(lane, model, plays=True)
            lane = _state(_state(lane, lane.production, "superseded"), model, "production")
            return replace(lane, production=model, history=(*lane.history, model), regressions=0)
        case ModelRejected(model=model):
            return _state(_answered(lane, model, plays=False), model, "rejected")
        case ModelRolledBack(model=model, to=to):
            lane = _state(_state(lane, model, "rolled_back"), to, "production")
            return replace(lane, production=to, history=(*lane.history, to), regressions=0)
        case CurriculumRebalanced(weight=weight):
            return replace(lane, weight=weight)
    return lane


def _bounded(lane: Lane) -> Lane:
    """Forgets models that neither play nor wait, nor are among the newest or those of late promotions."""
    if len(lane.models) <= MODELS_KEPT:
        return lane
    history = lane.history[-MODELS_KEPT // 2 :]
    needed = {lane.production, *history, *list(lane.models)[-MODELS_KEPT // 2 :]}
    needed |= {name for gate in lane.gates.values() for name in (gate.candidate, gate.baseline)}
    models = {name: one for name, one in lane.models.items() if name in needed or one.state in ("evaluating", "passed")}
    monitored = {name: games for name, games in lane.monitored.items() if name in needed}
    return replace(lane, models=models, history=history, monitored=monitored)


def _passed(lane: Lane, model: str, gate: str) -> Lane:
    if model not in lane.models:
        return lane
    return replace(_state(lane, model, "passed"), passed=lane.passed | {model: gate})


def _answered(lane: Lane, model: str, *, plays: bool) -> Lane:
    """A person has said whether a model that passed is to play: only then it is a step of the lane."""
    if model not in lane.passed:
        return lane
    gate = lane.gates[lane.passed[model]]
    found = statistics(gate.counts, gate.rules)
    lane = _stepped(lane, found.elo if found is not None else None, plays=plays)
    return replace(lane, passed={one: gate for one, gate in lane.passed.items() if one != model})


def _stepped(lane: Lane, elo: float | None, *, plays: bool) -> Lane:
    return lane if elo is None else replace(lane, elo_steps=(*lane.elo_steps, elo if plays else 0.0)[-STEPS_KEPT:])


def _with(lane: Lane, gate: Gate) -> Lane:
    gates = lane.gates | {gate.gate: gate}
    closed = [name for name, one in gates.items() if one.closed]
    if len(closed) > CLOSED_KEPT:
        needed = set(lane.passed.values())
        closed = [name for name in closed if name not in needed]
    for name in closed[:-CLOSED_KEPT]:
        gates = {key: value for key, value in gates.items() if key != name}
    return replace(lane, gates=gates)


def _closed(lane: Lane, name: str) -> Lane:
    return _with(lane, replace(lane.gates[name], closed=True))


def _state(lane: Lane, model: str, state: ModelState) -> Lane:
    if model not in lane.models:
        return lane
    return replace(lane, models=lane.models | {model: replace(lane.models[model], state=state)})


def _measured(lane: Lane, fact: MeasurementFinished) -> Lane:
    if fact.purpose != "monitor":
        return lane
    games = lane.monitored.get(fact.baseline, 0) + sum(fact.counts)
    lane = replace(lane, monitored=lane.monitored | {fact.baseline: games})
    if fact.candidate != lane.production or fact.statistics is None:
        return lane
    return replace(lane, regressions=lane.regressions + 1 if regressed(fact) else 0)


# score points lost against an older model, from the worst on
SEVERITIES: tuple[tuple[float, Severity], ...] = ((0.20, "severe"), (0.10, "moderate"), (0.05, "minor"))


def severity(fact: MeasurementFinished) -> tuple[Severity, float] | None:
    """How much worse than an older model the lane's newest one plays: 5, 10 or 20 % of the points, with confidence."""
    found = fact.statistics
    if fact.purpose != "monitor" or found is None or found.elo_high >= 0:
        return None
    points = 0.5 - 1 / (1 + 10 ** (-found.elo / 400))
    return next(((name, points) for least, name in SEVERITIES if points >= least), None)


def regressed(fact: MeasurementFinished) -> bool:
    """Worse by 50 Elo or by 10 % of the points, with confidence: the whole interval lies below even.

    10 % of the points are 70 Elo at an even score, so the first of the two always speaks first.
    """
    found = fact.statistics
    return found is not None and found.elo_high < 0 and found.elo <= ELO_REGRESSION


LANE = Decider("lifecycle", "lane", Lane(), evolve)
