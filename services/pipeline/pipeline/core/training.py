"""Training: a slot, a task under its token, a model with evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.core.stage import Look, again_or_close, append_here, request
from pipeline.settings import RENEW_BUCKET_S
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.parts import Artifact
from sparring.contracts.pipeline import TrainingFinished, TrainingInterrupted, TrainingStarted
from sparring.contracts.selfplay_orch import CancelTask, TaskFinished
from sparring.contracts.training_slots import ClaimSlot, ReleaseSlot, RenewSlot
from sparring.decider import Action, Send
from sparring.task_specs import KindNotOffered


def await_slot(look: Look) -> Iterable[Action]:
    now, answers = look.now, look.answers
    if not look.allowed("train"):
        return
    if answers.holder != now.holder or answers.expired >= answers.token:
        order = ClaimSlot(lane=now.lane, holder=now.holder, lease_s=look.ctx.settings.slot_lease_s)
        yield Send(order, key=f"claim-{now.holder}-{answers.expired}", correlation=now.iteration)
        return
    yield append_here(
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


def train(look: Look) -> Iterable[Action]:
    now, task = look.now, look.tasks.get(look.now.task)
    ended = look.answers.ended if look.answers.expired >= now.token else ""
    if ended and (task is None or task.finished is None):
        yield from interrupt(look, f"the slot is lost: {ended}")
        return
    asked = look.answers.asked >= now.token
    if asked and (task is None or task.state == "requested"):
        yield from interrupt(look, f"gave way to {look.answers.why_asked}")
        return
    if task is None or task.state == "requested":
        # the agent renews once it runs the task; until then its wait must not cost the slot
        bucket = int(look.ctx.now.timestamp()) // RENEW_BUCKET_S
        renewal = RenewSlot(lane=now.lane, token=now.token)
        yield Send(renewal, key=f"renew-{now.token}-{bucket}", correlation=now.iteration, again_s=3600.0)
    if task is None:
        try:
            yield train_task(look)
        except KindNotOffered as error:
            yield release(look)
            yield again_or_close(look, str(error))
        return
    if task.state == "abandoned":
        yield release(look)
        yield again_or_close(look, f"the training was given up: {task.reason}")
    if task.finished is not None:
        yield from trained(look, task.finished, asked=asked)


def train_task(look: Look) -> Send:
    """The training under its slot; one that was interrupted goes on from its checkpoint."""
    now = look.now
    dataset, fresh = look.answers.dataset, look.supply.consumed_positions - now.positions_before
    # what a list could not hold is new, and not there to train on
    fresh = min(fresh, dataset.positions) if dataset else now.min_positions
    inputs: dict[str, Sequence[Artifact]] = {"shards": now.shards}
    if look.parent is not None:
        inputs["parent"] = (look.parent,)
    if now.checkpoint is not None:
        inputs["checkpoint"] = (now.checkpoint,)
    return request(look, "train", look.ctx.settings.train_s, training_work(look.spec, fresh), inputs)


def trained(look: Look, finished: TaskFinished, *, asked: bool) -> Iterable[Action]:
    """What the program made; a checkpoint of a training that was asked to give way is gone on from."""
    now = look.now
    model, checkpoint = made(finished, "model"), made(finished, "checkpoint")
    if checkpoint is not None and (asked or model is None):
        reason = f"gave way to {look.answers.why_asked}" if asked else "it was stopped before its end"
        yield from interrupt(look, reason, checkpoint)
        return
    yield release(look)
    if model is None or not finished.evidence.get("steps"):
        yield again_or_close(look, "the training finished without a model or evidence")
        return
    yield append_here(
        look,
        TrainingFinished(
            iteration=now.iteration, lane=now.lane, model=model.sha256, artifact=model, token=now.token,
            evidence=finished.evidence, deadline_at=look.until(look.ctx.settings.evaluate_s),
        ),
    )  # fmt: skip


def made(finished: TaskFinished, role: str) -> Artifact | None:
    return next((file for file in finished.files if file.role == role), None)


def interrupt(look: Look, reason: str, checkpoint: Artifact | None = None) -> Iterable[Action]:
    """The training goes on under another slot: what still runs is stopped, what it saved is kept."""
    now = look.now
    if checkpoint is None:
        cancel = CancelTask(task=now.task, reason=reason)
        yield Send(cancel, key=f"interrupt-{now.task}", correlation=now.iteration)
    yield release(look)
    if now.interruptions >= look.ctx.settings.most_interruptions:
        yield again_or_close(look, reason)
        return
    deadline = now.deadline_at or look.until(look.ctx.settings.train_s)
    yield append_here(
        look,
        TrainingInterrupted(
            iteration=now.iteration, lane=now.lane, task=now.task, token=now.token, reason=reason,
            checkpoint=checkpoint, attempt=now.attempt + 1, deadline_at=deadline,
        ),
    )  # fmt: skip


def release(look: Look) -> Send:
    now = look.now
    order = ReleaseSlot(lane=now.lane, holder=now.holder, token=now.token)
    return Send(order, key=f"release-{now.token}", correlation=now.iteration)
