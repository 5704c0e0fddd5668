"""What every stage of an iteration shares: the look at one lane, and how a step becomes facts, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pipeline.core.iteration import ITERATION, Iteration
from pipeline.core.lane import Lane
from pipeline.core.picture import Answers, Supply, Task
from sparring.contracts.base import Fact
from sparring.contracts.lanes import LEAVES, LaneSpec
from sparring.contracts.parts import Artifact
from sparring.contracts.pipeline import IterationClosed, IterationOpened, StageRetried
from sparring.contracts.selfplay_orch import RequestTask
from sparring.decider import Append, Context, Send
from sparring.subjects import Ref
from sparring.task_specs import task_spec


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
        return not self.lane.paused and (step in self.spec.auto or step in self.now.ordered)

    @property
    def by_hand(self) -> bool:
        """Whether only a person moves the lane from where it stands."""
        needed = LEAVES.get(self.now.step)
        return self.now.step == "promote" or self.lane.paused or (needed is not None and not self.allowed(needed))


# where an iteration stands: another round of the same stage has other refusals or another task
STANDING = ("stage", "step", "attempt", "refusals", "task")


def append_here(look: Look, *facts: Fact, close: Sequence[Fact] = ()) -> Append:
    """The facts, if the iteration still stands where the picture saw it; `close` opens the next one beside them."""
    now, ref = look.now, ITERATION.ref(look.now.iteration)

    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        state = states[ref]
        same = all(getattr(state, name) == getattr(now, name) for name in STANDING)
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


def close(look: Look, outcome: Any, reason: str, *before: Fact) -> Append:
    """Ends the iteration, after the facts that stand before its end, and opens the next one."""
    now = look.now
    seconds = (look.ctx.now - now.opened_at).total_seconds() if now.opened_at else 0.0
    closed = IterationClosed(
        iteration=now.iteration, lane=now.lane, outcome=outcome, reason=reason, model=now.model,
        games=now.new_games, seconds=max(0.0, seconds),
    )  # fmt: skip
    return append_here(look, *before, closed, close=[opening(look, now.number + 1)])


DEADLINES: dict[str, Callable[[Any], float]] = {
    "collecting": lambda settings: float(settings.collect_s),
    "exporting": lambda settings: float(settings.export_s),
    "training": lambda settings: float(settings.train_s),
    "evaluating": lambda settings: float(settings.evaluate_s),
    "deciding": lambda settings: float(settings.person_s),
}


def again_or_close(look: Look, reason: str) -> Append:
    now = look.now
    tried = now.attempt - now.interruptions
    if tried >= look.ctx.settings.attempts:
        return close(look, "failed", f"{reason}; {tried} attempts")
    return append_here(
        look,
        StageRetried(
            iteration=now.iteration, lane=now.lane, stage=now.stage, attempt=now.attempt + 1, reason=reason,
            deadline_at=look.until(DEADLINES[now.stage](look.ctx.settings)),
        ),
    )  # fmt: skip


def request(
    look: Look, kind: str, timeout_s: float, work: dict[str, Any], inputs: dict[str, Sequence[Artifact]]
) -> Send:
    now = look.now
    spec = task_spec(
        look.spec, kind, now.task, timeout_s=timeout_s, work=work, inputs=inputs, iteration=now.iteration,
        slot_token=now.token if kind == "train" else None,
    )  # fmt: skip
    order = RequestTask(task=now.task, spec=spec, by="pipeline")
    return Send(order, key=f"request-{now.task}", correlation=now.iteration)
