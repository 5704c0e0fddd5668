"""Moves every lane through its iteration: looks at where it stands, and does what is due now."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pipeline.core.iteration import ITERATION, Iteration
from pipeline.core.lane import Lane
from pipeline.core.picture import Answers, LoopPicture, Supply, Task
from pipeline.core.quality import good_enough, quality
from sparring.contracts.base import Fact
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.lifecycle import CloseGate, Lineage, RegisterModel
from sparring.contracts.parts import Artifact
from sparring.contracts.pipeline import (
    CollectionFinished,
    EvaluationStarted,
    ExportFinished,
    ExportStarted,
    IterationClosed,
    IterationOpened,
    QualityRefused,
    StageExtended,
    StageRetried,
    TrainingAwaitsSlot,
    TrainingFinished,
    TrainingStarted,
)
from sparring.contracts.selfplay_orch import RequestTask
from sparring.contracts.sync import SealDataset
from sparring.contracts.training_slots import ClaimSlot, ReleaseSlot, RenewSlot
from sparring.decider import Action, Append, Context, Send
from sparring.statistics.windows import training_window
from sparring.subjects import Ref
from sparring.task_specs import task_spec

RENEW_BUCKET_S = 30


@dataclass(frozen=True)
class Look:
    """One lane at one moment."""

    lane: Lane
    spec: LaneSpec
    now: Iteration
    supply: Supply
    answers: Answers
    tasks: Mapping[str, Task]
    parent: Artifact | None
    failures: int
    last_failed: datetime | None
    ctx: Context

    def until(self, seconds: float) -> datetime:
        return self.ctx.now + timedelta(seconds=seconds)

    def allowed(self, step: str) -> bool:
        return not self.lane.paused and step in self.spec.auto


def plan(ctx: Context) -> Sequence[Action]:
    picture: LoopPicture = ctx.picture
    actions: list[Action] = []
    for name, lane in picture.all.lanes.items():
        if lane.spec is None:
            continue
        look = Look(
            lane, lane.spec, picture.all.open.get(name, Iteration()), picture.supply(name), picture.answers(name),
            picture.all.tasks, picture.all.production.get(name), picture.all.failures.get(name, 0),
            picture.all.last_failed.get(name), ctx,
        )  # fmt: skip
        actions += step(look)
    return actions


def step(look: Look) -> Iterable[Action]:
    """What is due for the lane. At most one fact's worth of progress at a time."""
    now = look.now
    if now.stage in ("", "closed"):
        return _open_next(look) if look.spec.enabled else ()
    due = {
        "games": _collect,
        "seal": _seal,
        "export": _export,
        "slot": _await_slot,
        "train": _train,
        "register": _register,
        "gate": _gate,
    }[now.step](look)
    actions = list(due)
    if actions and isinstance(actions[-1], Append):
        return actions
    if now.deadline_at is not None and look.ctx.now > now.deadline_at:
        return [*actions, *_overdue(look)]
    return actions


def _append(look: Look, *facts: Fact, close: Sequence[Fact] = ()) -> Append:
    """The facts, if the iteration still stands where the picture saw it; `close` opens the next one beside them."""
    now, ref = look.now, ITERATION.ref(look.now.iteration)

    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        state = states[ref]
        same = (state.stage, state.step, state.attempt) == (now.stage, now.step, now.attempt)
        return [*facts, *close] if same else []

    entities = [(ITERATION, now.iteration)] + [(ITERATION, fact.id) for fact in close]
    return Append(entities, decide, correlation=now.iteration)


def opening(look: Look, number: int) -> IterationOpened:
    rules = look.spec.iteration
    return IterationOpened(
        iteration=f"{look.spec.name}-{number}",
        lane=look.spec.name,
        number=number,
        min_positions=rules.min_positions,
        min_new_games=rules.min_new_games,
        games_before=look.supply.consumed_games,
        positions_before=look.supply.consumed_positions,
        deadline_at=look.until(look.ctx.settings.collect_s),
    )


def _open_next(look: Look) -> Iterable[Action]:
    fact = opening(look, look.now.number + 1)
    ref = ITERATION.ref(fact.iteration)

    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        return [fact] if not states[ref].stage else []

    return [Append([(ITERATION, fact.iteration)], decide, correlation=fact.iteration)]


def _collect(look: Look) -> Iterable[Action]:
    now, supply = look.now, look.supply
    games, positions = supply.games - now.games_before, supply.positions - now.positions_before
    tripped = look.failures >= look.ctx.settings.breaker_failures and look.last_failed is not None
    if (
        tripped
        and look.last_failed
        and look.ctx.now < look.last_failed + timedelta(seconds=look.ctx.settings.breaker_s)
    ):
        return
    if games < now.min_new_games or positions < now.min_positions or not look.allowed("export"):
        return
    cooldown = timedelta(seconds=look.spec.iteration.export_cooldown_s)
    if now.opened_at is not None and look.ctx.now < now.opened_at + cooldown and now.number > 1:
        return
    yield _append(
        look,
        CollectionFinished(
            iteration=now.iteration,
            lane=now.lane,
            new_games=games,
            new_positions=positions,
            window_positions=window(look.spec, supply, positions),
            deadline_at=look.until(look.ctx.settings.seal_s),
        ),
    )


def window(spec: LaneSpec, supply: Supply, fresh: int) -> int:
    """Positions that the data set may hold: of the last k iterations where the lane says so, else KataGo's window."""
    rules = spec.iteration
    if rules.window_iterations is not None:
        earlier = supply.fresh[len(supply.fresh) - rules.window_iterations + 1 :] if rules.window_iterations > 1 else []
        return fresh + sum(earlier)
    return max(fresh, training_window(supply.positions, rules.window_scale))


def _seal(look: Look) -> Iterable[Action]:
    now, sealed = look.now, look.answers.dataset
    if sealed is None:
        order = SealDataset(iteration=now.iteration, lane=now.lane, window_positions=now.window_positions,
                            since_games=now.games_before, read_to=look.ctx.read_to)  # fmt: skip
        yield Send(order, key=f"seal-{now.iteration}-{now.attempt}", correlation=now.iteration)
        return
    task = f"{now.iteration}-export-{now.attempt}"
    yield _append(
        look,
        ExportStarted(
            iteration=now.iteration,
            lane=now.lane,
            dataset=sealed.dataset,
            task=task,
            attempt=now.attempt,
            deadline_at=look.until(look.ctx.settings.export_s),
        ),
    )


def _request(
    look: Look, kind: str, timeout_s: float, work: dict[str, Any], inputs: dict[str, Sequence[Artifact]]
) -> Send:
    now = look.now
    spec = task_spec(
        look.spec, kind, now.task, timeout_s=timeout_s, work=work, inputs=inputs, iteration=now.iteration,
        slot_token=now.token if kind == "train" else None,
    )  # fmt: skip
    order = RequestTask(task=now.task, spec=spec, by="pipeline")
    return Send(order, key=f"request-{now.task}", correlation=now.iteration)


def _export(look: Look) -> Iterable[Action]:
    now, sealed, task = look.now, look.answers.dataset, look.tasks.get(look.now.task)
    if sealed is None:
        return
    if task is None:
        batches = [
            Artifact(name=one.batch, role="games", sha256=one.sha256, bytes=0, url=one.url) for one in sealed.batches
        ]
        yield _request(look, "export", look.ctx.settings.export_s, {"window_positions": now.window_positions},
                       {"batches": batches})  # fmt: skip
        return
    if task.state == "abandoned":
        yield _again_or_close(look, f"the export was given up: {task.reason}")
    if task.finished is None:
        return
    shards = tuple(file for file in task.finished.files if file.role == "shard")
    evidence = task.finished.evidence
    if not shards or not evidence.get("positions") or "coverage" not in evidence:
        yield _again_or_close(look, "the export finished without shards or evidence")
        return
    coverage = {str(name): float(value) for name, value in evidence["coverage"].items()}
    duplicates = float(evidence.get("duplicates", 0.0))
    value, terms = quality(coverage, duplicates, look.supply.decisive, look.supply.plies or None, look.spec.quality)
    if not good_enough(terms):
        deadline = look.until(look.ctx.settings.collect_s)
        yield _append(look, QualityRefused(iteration=now.iteration, lane=now.lane, terms=terms, deadline_at=deadline))
        return
    deadline = look.until(look.ctx.settings.train_s)
    yield _append(
        look,
        ExportFinished(
            iteration=now.iteration, lane=now.lane, dataset=now.dataset, shards=shards,
            positions=int(evidence["positions"]), coverage=coverage, duplicates=duplicates, quality=value,
            deadline_at=deadline,
        ),
        TrainingAwaitsSlot(iteration=now.iteration, lane=now.lane, holder=f"{now.iteration}-1", deadline_at=deadline),
    )  # fmt: skip


def _await_slot(look: Look) -> Iterable[Action]:
    now, answers = look.now, look.answers
    if not look.allowed("train"):
        return
    if answers.holder != now.holder or answers.expired >= answers.token:
        order = ClaimSlot(lane=now.lane, holder=now.holder, lease_s=look.ctx.settings.slot_lease_s)
        yield Send(order, key=f"claim-{now.holder}-{answers.expired}", correlation=now.iteration)
        return
    yield _append(
        look,
        TrainingStarted(
            iteration=now.iteration, lane=now.lane, task=f"{now.iteration}-train-{now.attempt}", token=answers.token,
            attempt=now.attempt, deadline_at=look.until(look.ctx.settings.train_s),
        ),
    )  # fmt: skip


def training_work(spec: LaneSpec, fresh: int) -> dict[str, Any]:
    """How much to train; the ratio of trained to new samples has a limit."""
    batch = spec.params.get("batch_size")
    most = (
        int(spec.iteration.max_trained_to_new_ratio * fresh / batch) if isinstance(batch, int) and batch > 0 else None
    )
    return {"new_positions": fresh, "steps": None, "max_steps": most}


def _train(look: Look) -> Iterable[Action]:
    now, task = look.now, look.tasks.get(look.now.task)
    if task is None or task.state == "requested":
        # the agent renews once it runs the task; until then its wait must not cost the slot
        bucket = int(look.ctx.now.timestamp()) // RENEW_BUCKET_S
        renewal = RenewSlot(lane=now.lane, token=now.token)
        yield Send(renewal, key=f"renew-{now.token}-{bucket}", correlation=now.iteration, again_s=3600.0)
    if task is None:
        fresh = look.answers.dataset.new_positions if look.answers.dataset else now.min_positions
        inputs: dict[str, Sequence[Artifact]] = {"shards": now.shards}
        if look.parent is not None:
            inputs["parent"] = (look.parent,)
        yield _request(look, "train", look.ctx.settings.train_s, training_work(look.spec, fresh), inputs)
        return
    if task.state == "abandoned":
        yield _release(look)
        yield _again_or_close(look, f"the training was given up: {task.reason}")
    if task.finished is None:
        return
    model = next((file for file in task.finished.files if file.role == "model"), None)
    if model is None or not task.finished.evidence.get("steps"):
        yield _release(look)
        yield _again_or_close(look, "the training finished without a model or evidence")
        return
    yield _release(look)
    yield _append(
        look,
        TrainingFinished(
            iteration=now.iteration, lane=now.lane, model=model.sha256, artifact=model, token=now.token,
            evidence=task.finished.evidence, deadline_at=look.until(look.ctx.settings.evaluate_s),
        ),
    )  # fmt: skip


def _release(look: Look) -> Send:
    now = look.now
    order = ReleaseSlot(lane=now.lane, holder=now.holder, token=now.token)
    return Send(order, key=f"release-{now.token}", correlation=now.iteration)


def settings_hash(spec: LaneSpec) -> str:
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()[:12]


def _register(look: Look) -> Iterable[Action]:
    now, answers = look.now, look.answers
    if answers.refused:
        yield _close(look, "failed", f"the model was refused: {answers.refused}")
        return
    if answers.registered:
        yield _append(
            look,
            EvaluationStarted(
                iteration=now.iteration, lane=now.lane, model=now.model, gate=answers.registered,
                deadline_at=look.until(look.ctx.settings.evaluate_s),
            ),
        )  # fmt: skip
        return
    if now.artifact is None or not look.allowed("evaluate"):
        return
    code = hashlib.sha256(" ".join(look.spec.commands.get("train", ())).encode()).hexdigest()[:12]
    lineage = Lineage(
        parent=look.parent.sha256 if look.parent else "", dataset=now.dataset, task=f"{now.iteration}-train",
        iteration=now.iteration, code_version=code, settings_hash=settings_hash(look.spec), slot_token=now.token,
    )  # fmt: skip
    order = RegisterModel(
        lane=now.lane, model=now.model, artifact=now.artifact, lineage=lineage, evidence=now.evidence or {},
        rules=look.spec.gate,
    )  # fmt: skip
    yield Send(order, key=f"register-{now.iteration}-{now.model}", correlation=now.iteration)


def _gate(look: Look) -> Iterable[Action]:
    decided = look.answers.decided
    if decided is None:
        return
    outcome = "promoted" if decided.verdict == "passed" else "rejected"
    yield _close(look, outcome, decided.reason)


def _close(look: Look, outcome: Any, reason: str) -> Append:
    now = look.now
    seconds = (look.ctx.now - now.opened_at).total_seconds() if now.opened_at else 0.0
    closed = IterationClosed(
        iteration=now.iteration, lane=now.lane, outcome=outcome, reason=reason, model=now.model,
        games=now.new_games, seconds=max(0.0, seconds),
    )  # fmt: skip
    return _append(look, closed, close=[opening(look, now.number + 1)])


DEADLINES: dict[str, Callable[[Any], float]] = {
    "collecting": lambda settings: float(settings.collect_s),
    "exporting": lambda settings: float(settings.export_s),
    "training": lambda settings: float(settings.train_s),
    "evaluating": lambda settings: float(settings.evaluate_s),
}


def _again_or_close(look: Look, reason: str) -> Append:
    now = look.now
    if now.attempt >= look.ctx.settings.attempts:
        return _close(look, "failed", f"{reason}; {now.attempt} attempts")
    return _append(
        look,
        StageRetried(
            iteration=now.iteration, lane=now.lane, stage=now.stage, attempt=now.attempt + 1, reason=reason,
            deadline_at=look.until(DEADLINES[now.stage](look.ctx.settings)),
        ),
    )  # fmt: skip


def _overdue(look: Look) -> Iterable[Action]:
    """Nothing waits for ever: games that still come extend, everything else is tried again or closed."""
    now = look.now
    manual = look.lane.paused or not set(look.spec.auto) >= {"export", "train", "evaluate"}
    if now.step == "games" or manual:
        reason = "a person paused the lane or steps by hand" if manual else "games still come in"
        deadline = look.until(DEADLINES[now.stage](look.ctx.settings))
        yield _append(look, StageExtended(iteration=now.iteration, lane=now.lane, stage=now.stage, reason=reason,
                                          deadline_at=deadline))  # fmt: skip
        return
    if now.step == "gate":
        grace = timedelta(seconds=look.ctx.settings.promote_s)
        if now.deadline_at is not None and look.ctx.now < now.deadline_at + grace:
            order = CloseGate(lane=now.lane, gate=now.gate, reason="the evaluation's deadline passed")
            yield Send(order, key=f"close-{now.gate}", correlation=now.iteration)
            return
        yield _close(look, "failed", "the gate was not decided in time")
        return
    if now.step == "train":
        yield _release(look)
    yield _again_or_close(look, f"{now.stage} passed its deadline")
