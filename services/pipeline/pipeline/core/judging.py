"""Judging: the model is registered, the gate decides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from pipeline.core.stage import Look, append_here, close
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.lifecycle import Lineage, RegisterModel
from sparring.contracts.pipeline import EvaluationStarted, PromotionAwaited
from sparring.decider import Action, Send


def settings_hash(spec: LaneSpec) -> str:
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()[:12]


def register(look: Look) -> Iterable[Action]:
    now, answers = look.now, look.answers
    if answers.refused:
        yield close(look, "failed", f"the model was refused: {answers.refused}")
        return
    if answers.registered:
        yield append_here(
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
        rules=look.spec.gate, by_hand="promote" not in look.spec.auto,
    )  # fmt: skip
    yield Send(order, key=f"register-{now.iteration}-{now.model}", correlation=now.iteration)


def gate(look: Look) -> Iterable[Action]:
    decided = look.answers.decided
    if decided is None:
        return
    if decided.by_hand:
        yield append_here(
            look,
            PromotionAwaited(
                iteration=look.now.iteration, lane=look.now.lane, model=decided.candidate, gate=decided.gate,
                deadline_at=look.until(look.ctx.settings.person_s),
            ),
        )  # fmt: skip
        return
    outcome = "promoted" if decided.verdict == "passed" else "rejected"
    yield close(look, outcome, decided.reason)


def promote(look: Look) -> Iterable[Action]:
    """A person decides, in lifecycle."""
    if look.answers.promoted:
        yield close(look, "promoted", f"promoted by {look.answers.promoted}")
    elif look.answers.turned_down:
        yield close(look, "rejected", look.answers.turned_down)
