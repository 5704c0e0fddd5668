"""What somebody names has to be there: a misspelt name is refused before anything rests on it."""

from __future__ import annotations

from sparring.errors import BadInput
from sparring.log.interface import Log
from sparring.subjects import Ref

# whose entity it is, as the log knows it, and which command lists them
NAMED = {"lane": ("pipeline", "lane", "spar lanes"), "node": ("health", "node", "spar nodes"),
         "task": ("selfplay-orch", "task", "spar tasks")}  # fmt: skip


async def check_known(log: Log, field: str, name: str) -> None:
    """`field` is one of NAMED, as the caller's person wrote it: `lane` or `--lane`. Raises BadInput for a name that the log
    holds no fact of, and LogUnavailable."""
    owner, entity, see = NAMED[field.removeprefix("--")]
    if not await log.last(Ref(owner, entity, name).pattern):
        raise BadInput(f"{field} = {name!r} is not known; see {see}")
