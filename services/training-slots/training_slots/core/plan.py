"""What time and lost nodes bring about: leases, grace times and claims end, waiting lanes are served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparring.contracts import health
from sparring.contracts.base import Fact
from sparring.contracts.selfplay_orch import (
    TaskAbandoned,
    TaskAssigned,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskRequested,
)
from sparring.contracts.training_slots import SlotExpired, SlotPreempted, SlotReleased
from sparring.decider import Action, Append, Context, Recorded
from sparring.picture import StoredPicture
from sparring.subjects import Ref
from training_slots.core.decide import expire
from training_slots.core.evolve import MAIN, POOL, evolve
from training_slots.core.state import Pool


@dataclass
class Training:
    """A task that runs under a slot: where, and in which life of that node."""

    token: int
    node: str = ""
    boot: str = ""


@dataclass
class Everything:
    """`trainings` by task, `lost` the tokens whose node is gone, with the reason."""

    pool: Pool = field(default_factory=Pool)
    trainings: dict[str, Training] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)


class PoolPicture(StoredPicture[Everything]):
    """The pool itself, and which node each holder's training runs on."""

    kind = Everything

    def apply(self, recorded: Recorded) -> None:
        fact = recorded.fact
        if fact.owner == "training-slots" and fact.entity == "pool":
            self.all.pool = evolve(self.all.pool, recorded)
        match fact:
            case TaskRequested(task=task, spec=spec) if spec.slot_token:
                self.all.trainings[task] = Training(spec.slot_token)
            case TaskAssigned(task=task, node=node, boot=boot) if task in self.all.trainings:
                training = self.all.trainings[task]
                training.node, training.boot = node, boot
            case TaskFinished(task=task) | TaskCancelled(task=task) | TaskAbandoned(task=task):
                self.all.trainings.pop(task, None)
            case TaskFailed(task=task) if task in self.all.trainings:
                self.all.trainings[task].node = ""
            case health.NodeLost(node=node) | health.NodeDrained(node=node):
                self._gone(node, "", f"node {node}, where it trained, is lost")
            case health.NodeJoined(node=node, boot=boot):
                self._gone(node, boot, f"node {node}, where it trained, started again")
            case SlotReleased(token=token) | SlotExpired(token=token) | SlotPreempted(token=token):
                self.all.lost.pop(token, None)

    def _gone(self, node: str, boot: str, reason: str) -> None:
        for training in self.all.trainings.values():
            if training.node == node and training.boot != boot:
                training.node = ""
                if any(held.token == training.token for held in self.all.pool.held.values()):
                    self.all.lost[training.token] = reason


def plan(ctx: Context) -> Sequence[Action]:
    picture: PoolPicture = ctx.picture
    lost = dict(picture.all.lost)
    if not expire(picture.all.pool, ctx.now, ctx.settings.slots, lost):
        return []

    def decide(states: Mapping[Ref, Any]) -> Sequence[Fact]:
        return expire(states[POOL.ref(MAIN)], ctx.now, ctx.settings.slots, lost)

    return [Append([(POOL, MAIN)], decide)]
