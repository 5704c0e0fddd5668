"""What the planner knows: lanes, their open iterations, admitted data, and what the other services said of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from pipeline.core import iteration as iterations
from pipeline.core.iteration import Iteration
from pipeline.core.lane import Lane
from pipeline.core.lane import evolve as evolve_lane
from sparring.contracts.lifecycle import (
    GateDecided,
    ModelPromoted,
    ModelRefused,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
)
from sparring.contracts.parts import Artifact, TaskSpec
from sparring.contracts.pipeline import QualityRefused, StageRetried
from sparring.contracts.selfplay_orch import (
    TaskAbandoned,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskOrphaned,
    TaskRequested,
    TaskStarted,
)
from sparring.contracts.sync import BatchAdmitted, DatasetRefused, DatasetSealed
from sparring.contracts.training_slots import PreemptionAsked, SlotClaimed, SlotExpired, SlotPreempted
from sparring.decider import Recorded
from sparring.picture import StoredPicture


@dataclass
class Task:
    """How a task that an open iteration waits for stands."""

    iteration: str
    state: str = "requested"
    finished: TaskFinished | None = None
    reason: str = ""


@dataclass
class Supply:
    """What is admitted of a lane, and what its data sets consumed."""

    games: int = 0
    positions: int = 0
    decisive: float = 0.0
    plies: float = 0.0
    consumed_games: int = 0
    consumed_positions: int = 0
    fresh: list[int] = field(default_factory=list)


@dataclass
class Answers:
    """What other services said about the open iteration of a lane.

    `expired` is the newest token whose slot was lost, `ended` why; `asked` the newest whose holder should give way.
    `promoted` says by whom, `turned_down` why, where a person decided on the model.
    """

    dataset: DatasetSealed | None = None
    unsealed: str = ""
    token: int = 0
    holder: str = ""
    expired: int = 0
    ended: str = ""
    asked: int = 0
    why_asked: str = ""
    registered: str = ""
    refused: str = ""
    decided: GateDecided | None = None
    promoted: str = ""
    turned_down: str = ""


@dataclass
class Everything:
    lanes: dict[str, Lane] = field(default_factory=dict)
    open: dict[str, Iteration] = field(default_factory=dict)
    supply: dict[str, Supply] = field(default_factory=dict)
    answers: dict[str, Answers] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    production: dict[str, Artifact] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    last_failed: dict[str, datetime] = field(default_factory=dict)


class LoopPicture(StoredPicture[Everything]):
    """A fold over the facts of all services; closed iterations leave nothing behind but sums."""

    kind = Everything

    def supply(self, lane: str) -> Supply:
        return self.all.supply.setdefault(lane, Supply())

    def answers(self, lane: str) -> Answers:
        return self.all.answers.setdefault(lane, Answers())

    def apply(self, recorded: Recorded) -> None:
        fact = recorded.fact
        match fact.owner, fact.entity:
            case "pipeline", "lane":
                self.all.lanes[fact.id] = evolve_lane(self.all.lanes.get(fact.id, Lane()), recorded)
            case "pipeline", "iteration":
                self._iterate(recorded)
            case "selfplay-orch", "task":
                self._task(recorded)
            case "sync", _:
                self._data(recorded)
            case "training-slots", _:
                self._slot(recorded)
            case "lifecycle", "lane":
                self._model(recorded)

    def _iterate(self, recorded: Recorded) -> None:
        lane = str(getattr(recorded.fact, "lane", ""))
        state = self.all.open.get(lane)
        opening = state is None or state.iteration != recorded.fact.id
        fresh = iterations.evolve(Iteration() if opening or state is None else state, recorded)
        if opening and fresh.stage == "collecting":
            self.all.answers[lane] = Answers()
        if isinstance(recorded.fact, QualityRefused):
            # another data set is sealed once there is more
            if self.answers(lane).dataset is not None:
                self.supply(lane).fresh = self.supply(lane).fresh[:-1]
            self.answers(lane).dataset = None
        if isinstance(recorded.fact, QualityRefused | StageRetried):
            self.answers(lane).unsealed = ""
        if fresh.stage == "closed":
            failed = getattr(recorded.fact, "outcome", "") == "failed"
            self.all.failures[lane] = self.all.failures.get(lane, 0) + 1 if failed else 0
            if failed:
                self.all.last_failed[lane] = recorded.at
            for task in [name for name, one in self.all.tasks.items() if one.iteration == recorded.fact.id]:
                del self.all.tasks[task]
        if fresh.iteration:
            self.all.open[lane] = fresh

    def _ours(self, spec: TaskSpec) -> bool:
        current = self.all.open.get(spec.lane)
        return current is not None and current.stage != "closed" and current.iteration == spec.iteration

    def _task(self, recorded: Recorded) -> None:
        match recorded.fact:
            case TaskRequested(task=task, spec=spec) if spec.kind in ("export", "train") and self._ours(spec):
                self.all.tasks.setdefault(task, Task(spec.iteration))
            case TaskStarted(task=task) if task in self.all.tasks:
                self.all.tasks[task].state = "started"
            case TaskFailed(task=task) | TaskOrphaned(task=task) if task in self.all.tasks:
                self.all.tasks[task].state = "requested"
            case TaskFinished(task=task) as finished if task in self.all.tasks and not finished.superseded:
                self.all.tasks[task].state, self.all.tasks[task].finished = "finished", finished
            case TaskAbandoned(task=task, reason=reason) | TaskCancelled(task=task, reason=reason) if (
                task in self.all.tasks
            ):
                self.all.tasks[task].state, self.all.tasks[task].reason = "abandoned", reason

    def _data(self, recorded: Recorded) -> None:
        match recorded.fact:
            case BatchAdmitted() as batch:
                supply = self.supply(batch.lane)
                supply.games += batch.games
                supply.positions += batch.positions
                share = batch.games / max(1, supply.games)
                decisive, plies = batch.check.decisive_share, batch.check.mean_plies
                supply.decisive += share * ((1.0 if decisive is None else decisive) - supply.decisive)
                supply.plies += share * ((plies or 0.0) - supply.plies)
            case DatasetSealed() as sealed:
                supply = self.supply(sealed.lane)
                supply.consumed_games += sealed.new_games
                supply.consumed_positions += sealed.new_positions
                current = self.all.open.get(sealed.lane)
                if current is not None and current.iteration == sealed.iteration:
                    self.answers(sealed.lane).dataset = sealed
                    supply.fresh = [*supply.fresh[-15:], max(0, supply.consumed_positions - current.positions_before)]

            case DatasetRefused(iteration=name, lane=lane, reason=reason) if self._is_open(lane, name):
                self.answers(lane).unsealed = reason

    def _slot(self, recorded: Recorded) -> None:
        match recorded.fact:
            case SlotClaimed(lane=lane, holder=holder):
                answers = self.answers(lane)
                answers.token, answers.holder = recorded.sequence, holder
            case SlotExpired(lane=lane, token=token, reason=reason):
                self._lost(lane, token, reason)
            case SlotPreempted(lane=lane, token=token):
                self._lost(lane, token, "it was asked to give way")
            case PreemptionAsked(lane=lane, token=token, reason=reason, by=by):
                answers = self.answers(lane)
                answers.asked, answers.why_asked = token, f"{by}: {reason}"

    def _lost(self, lane: str, token: int, reason: str) -> None:
        answers = self.answers(lane)
        answers.expired, answers.ended = token, reason

    def _model(self, recorded: Recorded) -> None:
        match recorded.fact:
            case ModelRegistered(lane=lane, lineage=lineage) if self._is_open(lane, lineage.iteration):
                self.answers(lane).registered = f"{lane}-g{recorded.fact.number}"
            case ModelRefused(lane=lane, iteration=name, reason=reason) if self._is_open(lane, name):
                self.answers(lane).refused = reason
            case GateDecided(lane=lane, iteration=name) as decided if self._is_open(lane, name):
                self.answers(lane).decided = decided
            case ModelPromoted(lane=lane, artifact=artifact, iteration=name, by=by):
                self.all.production[lane] = artifact
                if self._is_open(lane, name):
                    self.answers(lane).promoted = by or "its gate"
            case ModelRejected(lane=lane, iteration=name, reason=reason) if self._is_open(lane, name):
                self.answers(lane).turned_down = reason
            case ModelRolledBack(lane=lane, artifact=artifact):
                if artifact is None:
                    self.all.production.pop(lane, None)
                else:
                    self.all.production[lane] = artifact

    def _is_open(self, lane: str, name: str) -> bool:
        current = self.all.open.get(lane)
        return current is not None and current.iteration == name
