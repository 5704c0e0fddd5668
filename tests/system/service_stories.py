"""One story per service, told by orders and by other owners' facts: with or without kills it has to end the same way."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext, api
from nats.js.errors import NotFoundError

from health.dead_letters import KEEPER
from sparring import clock
from sparring.artifacts import open_store
from sparring.catalogue import services
from sparring.contracts.base import Fact, Order
from sparring.contracts.health import (
    ClusterSwitched,
    DeadLetterDiscarded,
    DeadLetterRecorded,
    DiscardDeadLetter,
    NodeJoined,
    RecordDeadLetter,
    SwitchCluster,
)
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.lifecycle import (
    EvaluationRequested,
    GateDecided,
    Lineage,
    ModelPromoted,
    ModelRegistered,
    RegisterModel,
)
from sparring.contracts.node_agent import ReleaseCustody, StartTask, UploadBatch
from sparring.contracts.parts import Artifact, Check, TaskSpec
from sparring.contracts.pipeline import (
    CollectionFinished,
    ExportFinished,
    ExportStarted,
    IterationClosed,
    IterationOpened,
    LanePaused,
    LaneRegistered,
    PauseLane,
    RegisterLane,
    TrainingFinished,
)
from sparring.contracts.selfplay_orch import (
    ReportTaskFinished,
    ReportTaskStarted,
    RequestTask,
    TaskAssigned,
    TaskFinished,
    TaskRequested,
    TaskStarted,
)
from sparring.contracts.sync import BatchAdmitted, DatasetSealed, GamesRecorded, RecordGames, ReportStored, SealDataset
from sparring.contracts.training_slots import (
    ClaimQueued,
    ClaimSlot,
    HoldLaneBack,
    LaneHeldBack,
    ReleaseSlot,
    RenewSlot,
    SlotClaimed,
    SlotExpired,
    SlotReleased,
    SlotRenewed,
)
from sparring.decider import Decider, Recorded
from sparring.entity_store import Because, EntityStore
from sparring.envelope import encode_order
from sparring.errors import LogUnavailable, LostRace
from sparring.hearing import whole
from sparring.log import JetStreamLog
from sparring.projection import Projection
from sparring.streams import COMMANDS, EVENTS, STREAMS
from sparring.subjects import filter_of
from sparring.testing import beating, eventually
from sparring.topology import declare_durable, declare_topology, declared_config

SHA = "a" * 64
ARGV = ("x", "{job}", "{out}")
WITHIN_S = 60.0


async def publish(js: JetStreamContext, order: Order, id: str, *, message: str) -> None:
    """The caller's part of at-least-once: sent until it is acknowledged. `message` is what the server tells repeats by."""
    subject, headers, body = encode_order(order, id, now=clock.now(), source="story")
    headers["Nats-Msg-Id"] = message

    async def taken() -> bool:
        try:
            await js.publish(subject, body, headers=headers, stream=COMMANDS, timeout=1)
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError):
            return False
        return True

    await eventually(taken, within_s=30)


class Stage:
    """A server with the topology and the service's consumers, whose messages come back a second after a kill."""

    def __init__(self, nc: Client, service: str) -> None:
        self.nc, self.js, self.log, self.service = nc, nc.jetstream(timeout=10), JetStreamLog(nc), service
        self._store = EntityStore(self.log)
        self._told = 0
        self.sent: dict[str, Order] = {}
        # what happens before the n-th message of the story is told
        self.before: dict[int, Callable[[], Awaitable[None]]] = {}

    @classmethod
    async def of(cls, url: str, service: str = "", *, window_s: float = 120.0) -> Stage:
        async def quiet(_: Exception) -> None: ...

        nc = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=quiet)
        stage = cls(nc, service)
        for one in STREAMS:
            settings = declared_config(one, 1).__dict__
            if one.name in (EVENTS, COMMANDS):
                await stage.js.add_stream(api.StreamConfig(**{**settings, "duplicate_window": window_s}))
        await declare_topology(stage.nc)
        return stage

    @classmethod
    async def set(cls, url: str, service: str, *, window_s: float = 120.0, ack_wait_s: float = 1.0) -> Stage:
        """`window_s` is how long the server itself notices that a message comes again, `ack_wait_s` after how long one that
        nobody acknowledged does."""
        stage = await cls.of(url, service, window_s=window_s)
        for one in services():
            if one.name == service:
                for durable in [*one.durables(), *([KEEPER] if service == "health" else [])]:
                    await declare_durable(stage.js, replace(durable, ack_wait_s=ack_wait_s))
        return stage

    async def _turn(self) -> int:
        self._told += 1
        if self._told in self.before:
            await self.before[self._told]()
        return self._told

    async def order(self, order: Order, id: str = "") -> None:
        """Sent until it is acknowledged, with an id that a run with kills shares with the run without."""
        turn = await self._turn()
        id = id or f"order-{turn}"
        self.sent[id] = order
        await publish(self.js, order, id, message=id)

    async def repeat_all(self) -> None:
        """Every order once more, as a redelivery after the window of the server's own deduplication."""
        for id, order in self.sent.items():
            await publish(self.js, order, id, message=f"{id}-again")

    async def fact(self, *facts: Fact) -> None:
        """Another owner's facts."""
        for fact in facts:
            id = f"fact-{await self._turn()}"
            decider: Decider[Any] = Decider(
                fact.owner, fact.entity, None, lambda state, _: state, state_type=type(None)
            )
            because = Because(source="story", now=clock.now(), id=id, order=id)

            async def taken(decider: Any = decider, fact: Fact = fact, because: Because = because) -> bool:
                try:
                    await self._store.execute([(decider, fact.id)], lambda _: [fact], because)
                except (LogUnavailable, LostRace):
                    return False
                return True

            await eventually(taken, within_s=30)

    async def happened(self, kind: type[Fact], count: int = 1) -> list[Any]:
        async def look() -> list[Any]:
            found = [one for one in await whole(self.log) if isinstance(one.fact, kind)]
            return found if len(found) >= count else []

        return await eventually(look, within_s=WITHIN_S, what=f"{count} × {kind.__name__}")

    async def asked(self, kind: type[Order], count: int = 1) -> list[Any]:
        """The orders of the class that were sent, each id once."""

        async def look() -> list[Any]:
            raws = await JetStreamLog(self.nc, stream=COMMANDS).load(filter_of(kind))
            found = {raw.headers["ce-id"]: kind.model_validate_json(raw.body) for raw in raws}
            return list(found.values()) if len(found) >= count else []

        return await eventually(look, within_s=WITHIN_S, what=f"{count} × {kind.__name__}")

    async def quiet(self) -> None:
        """Nothing is under way any more in the service's consumers."""

        async def look() -> bool:
            for durable in next(one for one in services() if one.name == self.service).durables():
                try:
                    info = await self.js.consumer_info(durable.stream, durable.name)
                except NotFoundError:
                    return False
                if info.num_pending or info.num_ack_pending:
                    return False
            return True

        await eventually(look, within_s=WITHIN_S, what="consumers at rest")


# ---- the stories


def lane(name: str = "hex") -> LaneSpec:
    rules = {"min_positions": 100, "min_new_games": 10, "export_cooldown_s": 0, "window_iterations": 2}
    commands = dict.fromkeys(("selfplay", "export", "train", "evaluate"), ARGV)
    gate = {"elo1": 50, "max_pairs": 400, "pairs_per_task": 100, "anchor_pairs": 1}
    return LaneSpec.model_validate(
        {"name": name, "game": "hex", "commands": commands, "iteration": rules, "gate": gate}
    )


def artifact(role: str, sha256: str = SHA) -> Artifact:
    return Artifact(name=role, role=role, sha256=sha256, bytes=1)


def batch(name: str, content: bytes, games: int = 10) -> RecordGames:
    check = Check(ok=True, games=games, positions=100, policy_coverage=1.0, mean_plies=10)
    sha256 = hashlib.sha256(content).hexdigest()
    return RecordGames(batch=f"{name}-1", lane="hex", task=name, attempt=1, node="n1", model="", sha256=sha256,
                       bytes=len(content), games=games, positions=100, check=check)  # fmt: skip


def joined(node: str = "n1") -> NodeJoined:
    return NodeJoined(node=node, boot="b", build="1", compatible=True, ephemeral=False, tags=(), kinds=(), machine=node,
                      cores=8, memory_bytes=2**35, gpus=(), seats=2)  # fmt: skip


async def slots(stage: Stage) -> None:
    # one after the other: whom a slot passes by is decided by the order of arrival
    for number, name in enumerate("abc", start=1):
        await stage.order(ClaimSlot(lane=name, holder=f"h-{name}", lease_s=600))
        claimed = await stage.happened(SlotClaimed, number)
    await stage.order(ClaimSlot(lane="d", holder="h-d", lease_s=600))
    await stage.happened(ClaimQueued)
    first = next(one for one in claimed if one.fact.lane == "a")
    await stage.order(RenewSlot(lane="a", token=first.sequence))
    await stage.happened(SlotRenewed)
    await stage.order(ReleaseSlot(lane="a", holder="h-a", token=first.sequence))
    await stage.happened(SlotReleased)
    await stage.happened(SlotClaimed, 4)
    await stage.order(HoldLaneBack(lane="b", reason="story", for_s=600))
    await stage.happened(LaneHeldBack)
    # nobody renews it: the planner ends it
    await stage.order(
        ReleaseSlot(lane="c", holder="h-c", token=next(t.sequence for t in claimed if t.fact.lane == "c"))
    )
    await stage.happened(SlotReleased, 2)
    await stage.order(ClaimSlot(lane="e", holder="h-e", lease_s=2))
    await stage.happened(SlotExpired)


async def custody(stage: Stage) -> None:
    store = await open_store("nats://ARTIFACTS", stage.js)
    await stage.fact(joined())
    for name in ("t1", "t2", "t3"):
        content = f"games of {name}".encode()
        order = batch(name, content)
        await stage.order(order)
        await stage.happened(GamesRecorded, int(name[1]))
        await stage.asked(UploadBatch, int(name[1]))
        with tempfile.NamedTemporaryFile(prefix="story-") as file:
            file.write(content)
            file.flush()
            url = await store.put(Path(file.name), order.sha256)
        await stage.order(ReportStored(batch=order.batch, node="n1", url=url, sha256=order.sha256, bytes=order.bytes))
        await stage.happened(BatchAdmitted, int(name[1]))
    await stage.asked(ReleaseCustody, 3)
    end = (await stage.happened(BatchAdmitted, 3))[-1].sequence
    await stage.order(SealDataset(iteration="hex-1", lane="hex", window_positions=10_000, since_games=0, read_to=end))
    await stage.happened(DatasetSealed)


async def models(stage: Stage) -> None:
    await stage.fact(LaneRegistered(lane="hex", spec=lane()))
    lineage = Lineage(
        parent="", dataset=SHA, task="t1", iteration="hex-1", code_version="1", settings_hash="s", slot_token=5
    )
    rules = lane().gate
    await stage.order(RegisterModel(lane="hex", model="b" * 64, artifact=artifact("model", "b" * 64), lineage=lineage,
                                    evidence={"steps": 1}, rules=rules))  # fmt: skip
    await stage.happened(ModelRegistered)
    await stage.happened(EvaluationRequested)
    request = (await stage.asked(RequestTask))[0]
    evidence = {"counts": [0, 5, 20, 45, 30], "games": 200, "settings": {}}
    await stage.fact(TaskRequested(task=request.task, spec=request.spec, by="lifecycle"))
    await stage.fact(TaskFinished(task=request.task, attempt=1, node="n", kind="evaluate", lane="hex", seconds=1,
                                  files=(), evidence=evidence))  # fmt: skip
    await stage.happened(GateDecided)
    await stage.happened(ModelPromoted)
    # what is promoted is measured against the anchor
    await stage.happened(EvaluationRequested, 2)
    await stage.asked(RequestTask, 2)


async def finished(stage: Stage, kind: str, role: str, evidence: dict[str, Any]) -> None:
    found = [one for one in await stage.asked(RequestTask) if one.spec.kind == kind]
    if not found:
        found = [one for one in await stage.asked(RequestTask, 2) if one.spec.kind == kind]
    request = found[-1]
    await stage.fact(TaskRequested(task=request.task, spec=request.spec, by="pipeline"))
    await stage.fact(TaskStarted(task=request.task, attempt=1, node="n"))
    await stage.fact(TaskFinished(task=request.task, attempt=1, node="n", kind=kind, lane="hex", seconds=1,
                                  files=(artifact(role),), evidence=evidence))  # fmt: skip


async def iteration(stage: Stage) -> None:
    await stage.order(RegisterLane(lane="hex", spec=lane()))
    await stage.happened(IterationOpened)
    await stage.fact(BatchAdmitted(batch="b1", lane="hex", games=10, positions=100, model="", sha256=SHA, url="u",
                                   check=Check(ok=True)))  # fmt: skip
    await stage.happened(CollectionFinished)
    sealing = (await stage.asked(SealDataset))[-1]
    await stage.fact(DatasetSealed(iteration=sealing.iteration, lane="hex", dataset=SHA, batches=(), games=10, positions=100,
                                   new_games=10, new_positions=100))  # fmt: skip
    await stage.happened(ExportStarted)
    await finished(stage, "export", "shard", {"positions": 100, "coverage": {"policy": 1.0}, "duplicates": 0.0})
    await stage.happened(ExportFinished)
    claim = (await stage.asked(ClaimSlot))[-1]
    await stage.fact(
        SlotClaimed(lane="hex", holder=claim.holder, until=clock.now().replace(year=2100), waited_s=0, held=1, limit=3)
    )
    await finished(stage, "train", "model", {"steps": 10})
    await stage.happened(TrainingFinished)
    await stage.asked(ReleaseSlot)
    order = (await stage.asked(RegisterModel))[-1]
    await stage.fact(ModelRegistered(lane="hex", model=order.model, number=1, artifact=order.artifact, lineage=order.lineage,
                                     evidence={}))  # fmt: skip
    await stage.fact(GateDecided(lane="hex", gate="hex-g1", candidate=order.model, baseline="", iteration="hex-1",
                                 verdict="passed", reason="accepted_h1", counts=(1,) * 5, statistics=None, rules=lane().gate,
                                 policy="p", settings_hash="s"))  # fmt: skip
    await stage.happened(IterationClosed)
    await stage.happened(IterationOpened, 2)
    await stage.order(PauseLane(lane="hex", revision=1, by="story"))
    await stage.happened(LanePaused)


async def placement(stage: Stage) -> None:
    async with beating(stage.nc, "n1", "n2") as runs:
        await _placement(stage, runs)


async def _placement(stage: Stage, runs: dict[str, set[tuple[str, int]]]) -> None:
    await stage.fact(joined("n1"), joined("n2"))
    for number in range(1, 5):
        spec = TaskSpec(kind="export", lane="hex", seed=1, argv=ARGV, timeout_s=600.0)
        await stage.order(RequestTask(task=f"e{number}", spec=spec, by="pipeline"))
    started = await stage.asked(StartTask, 4)
    for one in started:
        runs[one.node].add((one.task, one.attempt))
    for number, one in enumerate(started, start=1):
        await stage.order(ReportTaskStarted(task=one.task, attempt=one.attempt, node=one.node), f"start-{one.task}")
        # a finish that overtakes its start is right too, but another story
        await stage.happened(TaskStarted, number)
        await stage.order(
            ReportTaskFinished(task=one.task, attempt=one.attempt, node=one.node, seconds=1.0, files=(artifact("shard"),),
                               evidence={"positions": 100}), f"finish-{one.task}")  # fmt: skip
        runs[one.node].discard((one.task, one.attempt))
    await stage.happened(TaskAssigned, 4)
    await stage.happened(TaskFinished, 4)


async def keeping(stage: Stage) -> None:
    # the keeper hears that it was given up, and orders its letter to be recorded
    await stage.js.publish("cmd.health.cluster.main.SwitchCluster", b"no json", headers={"ce-id": "poison"})
    await stage.happened(DeadLetterRecorded)
    for number, state in enumerate(("paused", "running", "paused"), start=1):
        await stage.order(SwitchCluster(state=state, revision=number, by="story"))  # type: ignore[arg-type]
        await stage.happened(ClusterSwitched, number)
    for number in range(1, 4):
        letter = f"sync-COMMANDS-{number}"
        await stage.order(RecordDeadLetter(letter=letter, consumer="sync", stream="COMMANDS", stream_sequence=number,
            subject="cmd.sync.batch.b.RecordGames", message_type="RecordGames", cause="terminated", transient=False,
            reason="story", exception="Undecodable", fingerprint="f", deliveries=1, trace=""))  # fmt: skip
    await stage.happened(DeadLetterRecorded, 4)
    await stage.order(DiscardDeadLetter(letter="sync-COMMANDS-1", by="story", reason="story"))
    await stage.happened(DeadLetterDiscarded)


STORIES: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "training-slots": slots, "sync": custody, "lifecycle": models, "pipeline": iteration, "selfplay-orch": placement,
    "health": keeping,
}  # fmt: skip

# a pool of slots sends nothing: whoever waits is served in the same decision
SILENT = {"training-slots"}

# ---- the end state

# what depends on when something happened, or on where in the log it stands
VOLATILE = (
    "_at",
    "until",
    "token",
    "seconds",
    "waited_s",
    "held_s",
    "read_to",
    "urgency",
    "grant",
    "settings_hash",
    "highest_token",
)
# what health thinks of the other processes, which the story does not run, and plans that follow the clock
NOISE = {"HealthScored", "AlarmRaised", "AlarmCleared", "TaskDenied", "LaneSharesPlanned", "BackpressureChanged"}
# who won which seat is decided by the order of arrival, which a redelivery may change
RACED = {"TaskAssigned": {"node", "boot", "seat_limit"}, "SeatTaken": {"node", "freed", "running"},
         "SpawnAdmitted": {"node", "freed", "running"}, "TransferAdmitted": {"freed", "running"},
         "TaskStarted": {"node"}, "TaskFinished": {"node"}, "SlotClaimed": {"held"},
         "DeadLetterRecorded": {"letter", "stream_sequence", "deliveries", "trace"}}  # fmt: skip


def canonical(one: Recorded) -> str:
    """The fact without what depends on the moment."""
    name = type(one.fact).__name__
    data = one.fact.model_dump(mode="json")
    gone = RACED.get(name, set())
    kept = {key: value for key, value in data.items() if not key.endswith(VOLATILE) and key not in gone}
    if name == "TaskAssigned":
        # how old the node's reading was
        kept["terms"] = [term for term in kept["terms"] if term["name"] != "age s"]
    if "lineage" in kept:
        kept["lineage"] = {key: value for key, value in kept["lineage"].items() if not key.endswith(VOLATILE)}
    return f"{name} {json.dumps(kept, sort_keys=True)}"


def end_state(facts: list[Recorded]) -> Counter[str]:
    """Same facts modulo order, moments and places."""
    return Counter(canonical(one) for one in facts if type(one.fact).__name__ not in NOISE)


def rows(projection: Projection) -> dict[str, list[tuple[Any, ...]]]:
    return {
        name: sorted(projection.con.execute(f"select * from {name}").fetchall(), key=repr)
        for name in projection.tables()
    }


def same_rows_as_rebuilt(service: str, folder: Path, raws: list[Any]) -> int:
    """The service's own file, brought to the log's end, against one that is built from the first fact on.

    Returns where the file stood.
    """
    models_ = next(one for one in services() if one.name == service).read_models
    file = next(folder.rglob("read-*.duckdb"))
    live, fresh = Projection(file, models_), Projection(":memory:", models_)
    before = live.position
    live.apply(raws)
    fresh.apply(raws)
    found, wanted = rows(live), rows(fresh)
    for name in wanted:
        assert found[name] == wanted[name], f"{name}: {found[name]} instead of {wanted[name]}"
    live.close()
    fresh.close()
    return before
