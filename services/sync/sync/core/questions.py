"""What custody can be asked: which games only a node holds, in the order in which they will be brought to the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sparring.decider import Context
from sync.core.batch import Batch
from sync.core.picture import CustodyPicture
from sync.core.plan import node_of, urgency


@dataclass(frozen=True)
class Recommendation:
    """A batch that the store lacks. `urgency` is services.md's: games and age, more for what may vanish with its node."""

    batch: str
    lane: str
    node: str
    state: str
    urgency: float
    games: int
    age_s: float
    ephemeral: bool
    failures: int
    why: str
    since: datetime | None


def recommendations(ctx: Context, *, lane: str = "") -> list[Recommendation]:
    """The most urgent first; of one lane, or of all."""
    picture: CustodyPicture = ctx.picture
    found = []
    for name, batch in picture.all.open.items():
        if batch.state not in ("recorded", "granted") or (lane and batch.lane != lane):
            continue
        node = node_of(picture, batch.node)
        age_s = (ctx.now - batch.recorded_at).total_seconds() if batch.recorded_at else 0.0
        ephemeral = batch.ephemeral or node.ephemeral
        found.append(
            Recommendation(
                name, batch.lane, batch.node, batch.state,
                round(urgency(batch, node, ctx.now, ctx.settings.critical_s), 2), batch.games, round(age_s, 1),
                ephemeral, batch.failures, _why(ctx, age_s, ephemeral, node.lost_at is not None, batch, picture.all.held_back(batch)),
                batch.recorded_at,
            )
        )  # fmt: skip
    return sorted(found, key=lambda one: (-one.urgency, one.batch))


def _why(ctx: Context, age_s: float, ephemeral: bool, lost: bool, batch: Batch, by_hand: bool) -> str:
    if lost:
        return "its node is lost: the games are there again when it comes back"
    if batch.missing_since is not None:
        return "its node says that it has no such batch; it counts as lost when that stays so"
    if batch.state == "granted":
        return "it is on its way"
    if by_hand:
        return "its lane is brought by hand: spar sync --now"
    if ephemeral:
        return "its node may vanish at any moment"
    if age_s > ctx.settings.critical_s:
        return f"it waits for longer than {ctx.settings.critical_s:g} s"
    return "it waits for its turn"
