"""A lane of `pipeline` with the rest of the loop played by hand."""

from __future__ import annotations

from typing import Any

from pipeline.core.picture import LoopPicture
from pipeline.core.plan import plan
from pipeline.settings import Settings
from sparring.contracts.base import Fact
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.lifecycle import GateDecided, ModelRegistered, RegisterModel
from sparring.contracts.parts import Artifact, Check
from sparring.contracts.pipeline import IterationOpened, LaneRegistered
from sparring.contracts.selfplay_orch import RequestTask, TaskFinished, TaskRequested, TaskStarted
from sparring.contracts.sync import BatchAdmitted, DatasetSealed, SealDataset
from sparring.contracts.training_slots import ClaimSlot, SlotClaimed
from sparring.testing import at
from sparring.testing.world import World

SHA = "a" * 64
COMMANDS = dict.fromkeys(("selfplay", "export", "train", "evaluate"), ("x", "{job}", "{out}"))


def lane(**more: Any) -> LaneSpec:
    rules = {"min_positions": 100, "min_new_games": 10, "export_cooldown_s": 0, "window_iterations": 2}
    return LaneSpec.model_validate({"name": "hex", "game": "hex", "commands": COMMANDS, "iteration": rules} | more)


def artifact(role: str) -> Artifact:
    return Artifact(name=role, role=role, sha256=SHA, bytes=1)


def admitted(batch: str = "b1") -> BatchAdmitted:
    return BatchAdmitted(
        batch=batch, lane="hex", games=10, positions=100, model="", sha256=SHA, url="u", check=Check(ok=True)
    )


class Loop(World):
    """A lane with the rest of the loop played by hand."""

    def __init__(self, spec: LaneSpec | None = None, *facts: Fact) -> None:
        super().__init__(LoopPicture, plan, Settings(), LaneRegistered(lane="hex", spec=spec or lane()), *facts)
        self.tick(times=2)

    def collected(self) -> Loop:
        self.add(admitted(f"b{len(self.facts)}"))
        self.tick(times=2)
        return self

    def sealed(self) -> Loop:
        order = self.orders(SealDataset)[-1]
        fresh = 10 * len(self.of(BatchAdmitted)) - order.since_games
        self.add(DatasetSealed(iteration=order.iteration, lane="hex", dataset=SHA, batches=(), games=10, positions=100,
                               new_games=fresh, new_positions=10 * fresh, attempt=order.attempt))  # fmt: skip
        self.tick(times=2)
        return self

    def done(self, kind: str, role: str, evidence: dict[str, Any]) -> Loop:
        request = [one for one in self.orders(RequestTask) if one.spec.kind == kind][-1]
        self.add(TaskRequested(task=request.task, spec=request.spec, by="pipeline"))
        self.add(TaskStarted(task=request.task, attempt=1, node="n"))
        files = (artifact(role),) if role else ()
        self.add(
            TaskFinished(
                task=request.task, attempt=1, node="n", kind=kind, lane="hex", seconds=1, files=files, evidence=evidence
            )
        )
        self.tick(times=2)
        return self

    def exported(self, coverage: float = 1.0) -> Loop:
        return self.done("export", "shard", {"positions": 100, "coverage": {"policy": coverage}, "duplicates": 0.0})

    def slot(self) -> Loop:
        holder = self.orders(ClaimSlot)[-1].holder
        self.add(SlotClaimed(lane="hex", holder=holder, until=at(self.now + 90), waited_s=0, held=1, limit=3))
        self.tick(times=2)
        return self

    def registered(self) -> Loop:
        order = self.orders(RegisterModel)[-1]
        self.add(
            ModelRegistered(
                lane="hex", model=order.model, number=1, artifact=order.artifact, lineage=order.lineage, evidence={}
            )
        )
        self.tick(times=2)
        return self

    def decided(self, verdict: str = "passed", **more: Any) -> Loop:
        iteration = self.of(IterationOpened)[-1].iteration
        reason = "accepted_h1" if verdict == "passed" else "accepted_h0"
        self.add(GateDecided(lane="hex", gate="hex-g1", candidate=SHA, baseline="", iteration=iteration, verdict=verdict,
                             reason=reason, counts=(1,) * 5, statistics=None, rules=lane().gate, policy="p", settings_hash="s", **more))  # type: ignore[arg-type]  # fmt: skip
        self.tick()
        return self


TRAINED = {"steps": 10}
