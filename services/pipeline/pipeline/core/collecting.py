"""Collecting and exporting: when the data is enough, and whether it is good enough."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from pipeline.core.evidence import IllShaped, exported
from pipeline.core.picture import Supply
from pipeline.core.quality import good_enough, quality
from pipeline.core.stage import Look, again_or_close, append_here, close, request
from sparring import manifest
from sparring.contracts.lanes import LaneSpec
from sparring.contracts.pipeline import (
    CollectionFinished,
    ExportFinished,
    ExportStarted,
    QualityRefused,
    TrainingAwaitsSlot,
)
from sparring.contracts.sync import SealDataset
from sparring.contracts.training_slots import HoldLaneBack
from sparring.decider import Action, Send
from sparring.statistics.windows import training_window
from sparring.task_specs import KindNotOffered


def collect(look: Look) -> Iterable[Action]:
    now, supply = look.now, look.supply
    games, positions = supply.games - now.games_before, supply.positions - now.positions_before
    if paused_by_failures(look):
        return
    if now.refusals >= look.ctx.settings.attempts:
        # of an earlier build, which asked on
        yield close(look, "failed", f"the quality of its data was refused {now.refusals} times")
        return
    if games < now.min_new_games or positions < now.min_positions or not look.allowed("export"):
        return
    # a data set that was refused is followed by one with half as many games again, whatever came before it
    if now.refusals and supply.games - supply.consumed_games < max(1, now.min_new_games // 3):
        return
    cooldown = timedelta(seconds=look.spec.iteration.export_cooldown_s)
    if now.opened_at is not None and look.ctx.now < now.opened_at + cooldown and now.number > 1:
        return
    yield append_here(
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


def paused_by_failures(look: Look) -> bool:
    """Whether the lane's breaker is open: too many iterations failed in a row, the last one a short while ago."""
    settings = look.ctx.settings
    if look.failures < settings.breaker_failures or look.last_failed is None:
        return False
    return bool(look.ctx.now < look.last_failed + timedelta(seconds=settings.breaker_s))


def window(spec: LaneSpec, supply: Supply, fresh: int) -> int:
    """Positions that the data set may hold: of the last k iterations where the lane says so, else KataGo's window."""
    rules = spec.iteration
    if rules.window_iterations is not None:
        earlier = supply.fresh[len(supply.fresh) - rules.window_iterations + 1 :] if rules.window_iterations > 1 else []
        return fresh + sum(earlier)
    return max(fresh, training_window(supply.positions, rules.window_scale))


def seal(look: Look) -> Iterable[Action]:
    now, sealed = look.now, look.answers.dataset
    if sealed is None and look.answers.unsealed:
        yield again_or_close(look, f"no data set: {look.answers.unsealed}")
        return
    if sealed is None:
        order = SealDataset(iteration=now.iteration, lane=now.lane, window_positions=now.window_positions,
                            since_games=look.supply.consumed_games, read_to=look.ctx.read_to,
                            attempt=now.refusals + 1)  # fmt: skip
        rest_s = (now.deadline_at - look.ctx.now).total_seconds() if now.deadline_at is not None else None
        yield Send(order, key=f"seal-{now.iteration}-{now.refusals + 1}-{now.attempt}", correlation=now.iteration,
                   expires_s=rest_s)  # fmt: skip
        return
    task = f"{now.iteration}-export-{now.exports + 1}"
    yield append_here(
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


def export(look: Look) -> Iterable[Action]:
    now, sealed, task = look.now, look.answers.dataset, look.tasks.get(look.now.task)
    if sealed is None:
        yield again_or_close(look, "the data set that was exported is not the iteration's any more")
        return
    if task is None:
        try:
            yield request(look, "export", look.ctx.settings.export_s, {"window_positions": now.window_positions},
                          {"batches": [manifest.reference(sealed)]})  # fmt: skip
        except KindNotOffered as error:
            yield again_or_close(look, str(error))
        return
    if task.state == "abandoned":
        yield again_or_close(look, f"the export was given up: {task.reason}")
    if task.finished is None:
        return
    shards = tuple(file for file in task.finished.files if file.role == "shard")
    evidence = task.finished.evidence
    if not shards or not evidence.get("positions") or "coverage" not in evidence:
        yield again_or_close(look, "the export finished without shards or evidence")
        return
    try:
        made = exported(evidence)
    except IllShaped as error:
        yield again_or_close(look, f"the export's evidence is ill-shaped: {error}")
        return
    value, terms = quality(
        made.coverage, made.duplicates, look.supply.decisive, look.supply.plies or None, look.spec.quality
    )
    if not good_enough(terms):
        deadline, times = look.until(look.ctx.settings.collect_s), now.refusals + 1
        refused = QualityRefused(iteration=now.iteration, lane=now.lane, terms=terms, deadline_at=deadline,
                                 shards=shards)  # fmt: skip
        yield hold_back(look, value)
        if times >= look.ctx.settings.attempts:
            # each asks for half as many games again: without an end a bad lane would ask for ever more
            yield close(look, "failed", f"the quality of its data was refused {times} times", refused)
        else:
            yield append_here(look, refused)
        return
    if value < look.ctx.settings.low_quality:
        yield hold_back(look, value)
    deadline = look.until(look.ctx.settings.train_s)
    yield append_here(
        look,
        ExportFinished(
            iteration=now.iteration, lane=now.lane, dataset=now.dataset, shards=shards,
            positions=made.positions, coverage=made.coverage, duplicates=made.duplicates, quality=value,
            deadline_at=deadline,
        ),
        TrainingAwaitsSlot(iteration=now.iteration, lane=now.lane, holder=f"{now.iteration}-1", deadline_at=deadline),
    )  # fmt: skip


def hold_back(look: Look, value: float) -> Send:
    """Data of low quality gets the lane fewer turns at training for a while."""
    now, settings = look.now, look.ctx.settings
    order = HoldLaneBack(
        lane=now.lane, cause="data quality", severity="low_quality", for_s=settings.hold_s, by="pipeline",
        reason=f"{now.iteration}: quality {value:.3f}, low is below {settings.low_quality:g}",
        revision=int(look.ctx.now.timestamp() * 1000),
    )  # fmt: skip
    return Send(order, key=f"quality-{now.task}", correlation=now.iteration)
