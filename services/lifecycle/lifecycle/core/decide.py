"""Registration, matches, verdicts, promotion, rollback: every decision of a lane's models."""

from __future__ import annotations

from lifecycle.core.evolve import regressed
from lifecycle.core.production import before, by_hand, outdated, promotion, rebalanced, rejection
from lifecycle.core.state import Gate, Lane, Task
from lifecycle.core.verdict import POLICY, Verdict, statistics, verdict
from sparring.contracts.base import Fact
from sparring.contracts.lifecycle import (
    AbandonMatch,
    CloseGate,
    GateDecided,
    GateOpened,
    MatchRecorded,
    MatchRefused,
    MeasurementFinished,
    MeasurementOpened,
    ModelRefused,
    ModelRegistered,
    ModelRolledBack,
    RecordMatch,
    RegisterModel,
    RollBack,
    RollbackRefused,
)
from sparring.decider import Context, replace

MOST_ABANDONED = 3
REGRESSIONS = 3


def register(order: RegisterModel, lane: Lane, ctx: Context) -> list[Fact]:
    """A model with its lineage becomes a candidate; a stale fencing token is refused on the lane's own memory."""
    known = lane.models.get(order.model)
    if known is not None and known.task == order.lineage.task:
        return []
    reason = _refusal(order, lane)
    if reason:
        return [
            ModelRefused(
                lane=order.lane,
                model=order.model,
                iteration=order.lineage.iteration,
                reason=reason,
                token=order.lineage.slot_token,
                highest_token=lane.highest_token,
            )
        ]
    number = max(lane.numbered, len(lane.models)) + 1
    return [
        *superseded(lane, ctx, order.lane, "a newer candidate came"),
        ModelRegistered(
            lane=order.lane,
            model=order.model,
            number=number,
            artifact=order.artifact,
            lineage=order.lineage,
            evidence=order.evidence,
        ),
        GateOpened(
            lane=order.lane,
            gate=f"{order.lane}-g{number}",
            candidate=order.model,
            baseline=lane.production,
            iteration=order.lineage.iteration,
            rules=order.rules,
            by_hand=order.by_hand,
        ),
    ]


def superseded(lane: Lane, ctx: Context, name: str, why: str) -> list[Fact]:
    """Ends the gates that are open: what they measure is asked no more."""
    gates = [gate for gate in lane.open_gates if gate.purpose == "gate"]
    return [fact for gate in gates for fact in _decided(gate, lane, ctx, name, why)]


def _refusal(order: RegisterModel, lane: Lane) -> str:
    if order.lineage.slot_token < lane.highest_token:
        return f"fencing token {order.lineage.slot_token} is older than {lane.highest_token}: a later holder trains or has registered"
    if order.model in lane.models:
        return "equal weights were registered from another task"
    if order.artifact.sha256 != order.model:
        return f"the artifact's SHA-256 {order.artifact.sha256[:12]} is not the model's"
    if not order.evidence:
        return "a completion without evidence"
    return ""


def record(order: RecordMatch, lane: Lane, ctx: Context) -> list[Fact]:
    """Takes in a task's cumulative counts, and decides the gate when they suffice: one decision."""
    gate = lane.gates.get(order.gate)
    if gate is None:
        return [MatchRefused(lane=order.lane, gate=order.gate, task=order.task, reason="no such gate")]
    known = gate.tasks.get(order.task)
    if known is not None and (known.final or known.counts == tuple(order.counts)) and not order.final:
        return []
    if known is not None and known.final:
        return []
    reason = _contradiction(order, gate)
    if reason:
        return _given_up(gate, order.task, reason, lane, ctx, order.lane)
    recorded = MatchRecorded(
        lane=order.lane,
        gate=order.gate,
        purpose=gate.purpose,
        task=order.task,
        candidate=gate.candidate,
        baseline=gate.baseline,
        counts=order.counts,
        games=order.games,
        settings=order.settings,
        final=order.final,
    )
    if gate.closed:
        return [recorded]
    task = known or Task(sum(order.counts), 0)
    after = gate.with_task(order.task, replace(task, counts=tuple(order.counts), final=order.final))
    return [recorded, *_concluded(after, lane, ctx, order.lane)]


def _contradiction(order: RecordMatch, gate: Gate) -> str:
    games = sum(order.counts) * (2 if len(order.counts) == 5 else 1)
    if games == 0 or games != order.games:
        return f"counts {list(order.counts)} are {games} games, reported are {order.games}"
    others = {len(task.counts) for name, task in gate.tasks.items() if task.counts and name != order.task}
    if others - {len(order.counts)}:
        return f"counts {list(order.counts)} have {len(order.counts)} columns, the gate's other tasks {max(others)}"
    return ""


def abandon(order: AbandonMatch, lane: Lane, ctx: Context) -> list[Fact]:
    """The evaluation will not come."""
    gate = lane.gates.get(order.gate)
    task = gate.tasks.get(order.task) if gate else None
    if gate is None or task is None or not task.open:
        return []
    return _given_up(gate, order.task, order.reason, lane, ctx, order.lane)


def _given_up(gate: Gate, task: str, reason: str, lane: Lane, ctx: Context, name: str) -> list[Fact]:
    """The task's games will not come, or say nothing; after three such tasks the gate is decided on what was played."""
    refused, known = MatchRefused(lane=name, gate=gate.gate, task=task, reason=reason), gate.tasks.get(task)
    if known is None or gate.closed:
        return [refused]
    after = gate.with_task(task, replace(known, abandoned=True))
    if after.abandoned < MOST_ABANDONED:
        return [refused]
    why = f"{MOST_ABANDONED} evaluations did not come, the last one: {reason}"
    return [refused, *_decided(after, lane, ctx, name, why)]


def close(order: CloseGate, lane: Lane, ctx: Context) -> list[Fact]:
    gate = lane.gates.get(order.gate)
    return [] if gate is None or gate.closed else _decided(gate, lane, ctx, order.lane, order.reason)


def _concluded(gate: Gate, lane: Lane, ctx: Context, name: str) -> list[Fact]:
    if gate.purpose != "gate":
        return _decided(gate, lane, ctx, name) if gate.pairs >= gate.most_pairs else []
    found = verdict(gate.counts, gate.rules)
    return _gate_facts(gate, found, lane, ctx, name) if found else []


def _decided(gate: Gate, lane: Lane, ctx: Context, name: str, why: str = "") -> list[Fact]:
    """Ends the gate on what has been played; `why` not all of it was."""
    if gate.purpose != "gate":
        finished = MeasurementFinished(
            lane=name,
            gate=gate.gate,
            purpose=gate.purpose,
            candidate=gate.candidate,
            baseline=gate.baseline,
            counts=gate.counts,
            statistics=statistics(gate.counts, gate.rules),
            reason="played" if gate.pairs >= gate.most_pairs else "ended early",
        )
        return [finished, *_measured_again(finished, gate, lane, name)]
    found = verdict(gate.counts, gate.rules, over=True)
    return _gate_facts(gate, found, lane, ctx, name, why) if found else []


def _gate_facts(gate: Gate, found: Verdict, lane: Lane, ctx: Context, name: str, why: str = "") -> list[Fact]:
    decided = GateDecided(
        lane=name,
        gate=gate.gate,
        candidate=gate.candidate,
        baseline=gate.baseline,
        iteration=gate.iteration,
        verdict=found.verdict,
        reason=found.reason,
        counts=gate.counts,
        statistics=found.statistics,
        rules=gate.rules,
        policy=POLICY,
        settings_hash=ctx.settings_hash or "unset",
        ended_by=why[:300],
        by_hand=found.verdict == "passed" and by_hand(gate, ctx, name),
    )
    if decided.by_hand:
        return [decided]
    passed = found.verdict == "passed"
    after: list[Fact] = promotion(gate, lane, name) if passed else [rejection(gate, found.reason, name)]
    return [decided, *after, rebalanced(gate, lane, name, plays=passed)]


def _measured_again(finished: MeasurementFinished, gate: Gate, lane: Lane, name: str) -> list[Fact]:
    """A regression is measured again, against the model that would play instead, until it is refuted or three in a row."""
    doubted = finished.purpose == "monitor" and finished.candidate == lane.production and regressed(finished)
    if not doubted or lane.regressions + 1 >= REGRESSIONS:
        return []
    number = lane.models[gate.candidate].number
    return [
        MeasurementOpened(
            lane=name, gate=f"{name}-m{number}-{lane.measurements + 1}", purpose="monitor", candidate=gate.candidate,
            baseline=before(lane) or gate.baseline, pairs=gate.most_pairs,
        )
    ]  # fmt: skip


def roll_back(order: RollBack, lane: Lane, ctx: Context) -> list[Fact]:
    """By hand: to the model named, else to the one before."""
    target = order.to or before(lane)
    matching = [model for model in lane.models if model.startswith(target)] if target else []
    if target and len(matching) != 1:
        return [RollbackRefused(lane=order.lane, by=order.by, reason=f"{target!r} names {len(matching)} models")]
    to = matching[0] if matching else ""
    if not lane.production or to == lane.production:
        return [RollbackRefused(lane=order.lane, by=order.by, reason="that model is in production already")]
    return _rolled_back(order.lane, lane, ctx, to, order.by, order.reason)


def regress(name: str, lane: Lane, ctx: Context) -> list[Fact]:
    """Three monitoring matches in a row were lost clearly: the previous model plays again."""
    if lane.regressions < REGRESSIONS or not lane.production:
        return []
    return _rolled_back(name, lane, ctx, before(lane), "lifecycle", "three regressions in a row")


def _rolled_back(name: str, lane: Lane, ctx: Context, to: str, by: str, reason: str) -> list[Fact]:
    """A candidate that beats the model which is taken back would say nothing about the one that plays then."""
    artifact = lane.models[to].artifact if to else None
    back = ModelRolledBack(lane=name, model=lane.production, to=to, artifact=artifact, by=by, reason=reason)
    why = "its baseline was rolled back"
    return [*superseded(lane, ctx, name, why), *outdated(lane, name, why), back]
