"""Questions: every answer is true as of a sequence, and asks no service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import nats.errors
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from sparring.artifacts import open_store
from sparring.client.orders import Orders
from sparring.contracts.base import Fact
from sparring.contracts.parts import Artifact
from sparring.decider import Recorded
from sparring.errors import BadInput, CannotAnswer, LogUnavailable
from sparring.hearing import heard
from sparring.log.archived import ArchivedLog
from sparring.questions import ask
from sparring.reader import Reader, log_identity
from sparring.report import report, unheard
from sparring.streams import LEASES
from sparring.subjects import token

QUEUES = "select * from health_queues where $lane = '' or lane = $lane order by lane, name"
PRODUCTION = "select model, artifact from lifecycle_models where lane = ? and state = 'production'"
MODELS = "select model, artifact from lifecycle_models where lane = ? and starts_with(model, ?) order by number"


class Reading(Orders):
    """Tables of all services at one moment, and the rules that decide, asked without a side effect."""

    @contextlib.asynccontextmanager
    async def read(self, at: str | int | None = None) -> AsyncIterator[Reader]:
        """All services' tables at one moment: `async with client.read(at=48213) as tables: tables.rows("select …")`."""
        await self._connected()
        assert self.place is not None
        try:
            opened = await Reader.open(self.place, None if at is None else str(at))
        except NotFoundError as error:
            raise CannotAnswer(
                f"no service has run on the server at {self.place.url} yet: start it with `spar up`"
            ) from error
        async with opened as reader:
            yield reader

    async def rows(self, sql: str, parameters: Sequence[Any] = (), at: str | int | None = None) -> list[dict[str, Any]]:
        async with self.read(at) as reader:
            return reader.rows(sql, parameters)

    async def question(self, service: str, name: str, at: str | int | None = None, **asked: Any) -> Any:
        """A service's own rules, asked of the log. Raises CannotAnswer when nobody can tell: no answer is no permission."""
        async with self.read(at) as reader:
            return await ask(reader, service, name, **asked)

    async def can_spawn(self, kind: str, node: str, at: str | int | None = None) -> Any:
        """Whether a task of the kind may be placed on the node now: `.allowed`, `.reason`, `.actual`, `.limit`, `.terms`."""
        return await self.question("selfplay-orch", "can_spawn", at, kind=kind, node=node)

    async def can_train(self, lane: str, at: str | int | None = None) -> Any:
        """Whether a claim for a training slot would be served at once: `.allowed`, `.reason`, `.until`."""
        return await self.question("training-slots", "can_train", at, lane=lane)

    async def can_schedule(
        self, kind: str, lane: str, seconds: float | None = None, at: str | int | None = None
    ) -> Any:
        """Whether, where and for how long a task would run if it were asked for now: `.allowed`, `.node`, `.p90_s`."""
        return await self.question("selfplay-orch", "can_schedule", at, kind=kind, lane=lane, seconds=seconds)

    async def estimate(self, kind: str, lane: str, node: str = "", at: str | int | None = None) -> Any:
        """How long a task takes, from the planner's own table: `.mean_s`, `.p90_s`, `.measured`, `.node_class`."""
        return await self.question("selfplay-orch", "estimate", at, kind=kind, lane=lane, node=node)

    async def health(self, at: str | int | None = None) -> dict[str, Any]:
        """`score` with its parts, `cluster`, `nodes` by state, `pressure`, `thresholds`, and `issues`: everything open, each
        with `since`, `whose` it is and the `remedy`; `unheard` (None: nothing) says that all of it is the last word of a health
        that is silent. Raises CannotAnswer while health has said nothing."""
        async with self.read(at) as reader:
            found = report(reader) | {"unheard": unheard(reader, await reader.readings())}
            if found["score"] is None:
                raise CannotAnswer(f"health has given no score yet as of {reader.as_of.sequence}; is it running?")
            return {"as_of": reader.as_of.sequence, **found}

    async def backpressure(self, lane: str = "", at: str | int | None = None) -> list[dict[str, Any]]:
        """Every queue with its level, factor, depth and limits; of one lane, or of all."""
        async with self.read(at) as reader:
            cursor = reader.projection.con.execute(QUEUES, {"lane": lane})
            names = [str(column[0]) for column in cursor.description or []]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    async def role(self, service: str) -> str:
        """Which replica of the service decides now; '' when none does. Only now: leases are no facts."""
        js = (await self._connected()).jetstream(timeout=5)
        try:
            last = await js.get_last_msg(f"KV_{LEASES}", f"$KV.{LEASES}.{service}")
        except NotFoundError:
            return ""
        except (nats.errors.Error, JetStreamError, TimeoutError, OSError) as error:
            raise LogUnavailable(f"the leases can't be read: {error!r}") from error
        if (last.headers or {}).get("KV-Operation"):
            return ""
        return str(json.loads(last.data or b"{}").get("holder", ""))

    async def model(self, lane: str, model: str = "", at: str | int | None = None) -> Artifact:
        """The lane's model in production, or the one whose hash begins so. Raises BadInput when there is none."""
        found = await self.rows(MODELS if model else PRODUCTION, [lane, model] if model else [lane], at=at)
        if len(found) != 1:
            what = f"{len(found)} models begin with {model!r}" if model else "no model is in production yet"
            raise BadInput(f"lane {lane}: {what}; see spar models")
        return Artifact.model_validate(found[0]["artifact"])

    async def fetch(self, artifact: Artifact, to: Path | str, store: str = "") -> Path:
        """Writes the content to `to`, or into that folder under its own name; the hash is checked on the way."""
        url = store or artifact.url.rpartition("/")[0] or "nats://ARTIFACTS"
        home = await open_store(url, (await self._connected()).jetstream(timeout=5))
        target = Path(to)
        file = target / artifact.name if target.is_dir() else target
        await home.get(artifact.url, file)
        return file

    async def fetch_model(self, lane: str, to: Path | str, model: str = "", at: str | int | None = None) -> Path:
        """Fetches the lane's model in production, or the one named."""
        return await self.fetch(await self.model(lane, model, at), to)

    async def subscribe(
        self, *classes: type[Fact], lane: str = "", since: int | None = None, durable: str = ""
    ) -> AsyncIterator[Recorded]:
        """Facts of the classes (all without any) as they happen, from the sequence `since` on, else from now.

        With `durable` the next subscription of that name on this machine goes on behind the last fact that was handled:
        a fact counts as handled when the caller asks for the one after it, so that what a crash interrupts comes again.
        """
        nc = await self._connected()
        log, file = ArchivedLog(nc), None
        if durable:
            file = self._outbox.parent / "subscriptions" / f"{token(durable)}-{await log_identity(nc)}"
        start = await log.end() if since is None else since - 1
        if file is not None:
            start = int(file.read_text()) if file.exists() else start
            _remember(file, start)
        async with contextlib.aclosing(log.follow(start)) as feed:  # type: ignore[type-var]
            async for batch in feed:
                for raw in batch:
                    one = heard(raw)
                    wanted = one is not None and (not classes or isinstance(one.fact, classes))
                    if one is not None and wanted and (not lane or lane_of(one) == lane):
                        yield one
                        if file is not None:
                            await asyncio.to_thread(_remember, file, raw.sequence)
                if batch and file is not None:
                    await asyncio.to_thread(_remember, file, batch[-1].sequence)


def _remember(file: Path, position: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".tmp")
    draft.write_text(str(position))
    os.replace(draft, file)


def lane_of(one: Recorded) -> str:
    """The lane that a fact is about; '' when it is about none."""
    lane = getattr(one.fact, "lane", "") or getattr(getattr(one.fact, "spec", None), "lane", "")
    return str(lane) or one.correlation.rpartition("-")[0]
