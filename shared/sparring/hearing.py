"""What a process has read of the log: its picture and its tables, fed in order by a consumer of its own."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import duckdb

from sparring.backoff import doubled_s
from sparring.contracts.base import Fact
from sparring.decider import Picture, Recorded
from sparring.ending import comes, ended
from sparring.envelope import foreign, recorded
from sparring.errors import Permanent, ReadModelBehind, Transient
from sparring.faults import fault
from sparring.log.interface import Log, Raw, until
from sparring.projection import FileInUse, Projection
from sparring.subjects import CARRIED, class_of

FLUSH_S = 0.25
CHECKPOINT_S = 300.0
MOST_PENDING = 50_000
# how long broken tables, or a log that does not answer, are left alone before the next try
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
# a server elects its leader within seconds: so many tries pass before anybody is told
TRIES_IN_SILENCE = 4


class NoPicture:
    """The picture of a service that needs none."""

    def apply(self, recorded: Recorded) -> None: ...

    def dump(self) -> Any:
        return {}

    def text(self) -> str:
        return "{}"

    def load(self, data: Any) -> None: ...


class Hearing:
    """Follows the log from where it stopped; stops, and says so, at a fact that it can't apply.

    `stuck` is that fact; `deaf` says that the log does not answer, `broken` that the tables stand still: both mend themselves.
    """

    def __init__(
        self,
        log: Log,
        make_picture: Callable[[], Picture] | None,
        open_projection: Callable[[], Projection] | None,
        *,
        checkpoint: Path | None,
        identity: str,
        logger: Any,
    ) -> None:
        self._log, self._logger, self._checkpoint, self._identity = log, logger, checkpoint, identity
        self.picture: Picture = make_picture() if make_picture else NoPicture()
        self._make_picture, self._open_projection = make_picture, open_projection
        self.projection: Projection | None = None
        self.position = 0
        self.projected = 0
        self.stuck = self.deaf = self.broken = ""
        self.changed = asyncio.Event()
        # what the process itself hears, by type of fact
        self.tells: dict[type[Fact], Callable[[Recorded], None]] = {}
        # who writes to, copies or replaces the tables holds this
        self.tables = asyncio.Lock()
        self._moved = asyncio.Condition()
        self._pending: list[Raw] = []
        self._room = asyncio.Event()
        # the tables are not taken to be whole: they are opened again at `_mend_at`, and `_missed` what came meanwhile
        self._shut = self._missed = False
        self._mend_at, self._breaks = 0.0, 0

    @property
    def trouble(self) -> str:
        """Why this process is not ready; empty when it is."""
        return self.stuck or self.deaf or self.broken

    async def prepare(self) -> None:
        """Opens the tables and the picture's last checkpoint; both are begun anew when they don't fit the log."""
        end = await self._log.end()
        if self._open_projection is not None:
            self.projection = await asyncio.to_thread(self._open_projection)
            self.projected = self.projection.position
            if self.projected > end:
                await asyncio.to_thread(self.projection._begin_anew)
                self.projected = 0
        self._restore(end)

    def _restore(self, end: int) -> None:
        if self._checkpoint is not None and self._checkpoint.exists():
            self.restore(self._checkpoint.read_text(), end)

    @property
    def has_picture(self) -> bool:
        return self._make_picture is not None

    def restore(self, text: str, up_to: int) -> bool:
        """Takes the picture that `written` wrote, if it is of this build and log and not past `up_to`."""
        try:
            data = json.loads(text)
            if data["identity"] != self._identity or not 0 <= data["position"] <= up_to:
                return False
            self.picture.load(data["picture"])
            self.position = int(data["position"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._logger.warning("the picture's checkpoint does not fit; reading the log instead", error=repr(error))
            self.picture = self._make_picture() if self._make_picture else NoPicture()
            self.position = 0
            return False
        return True

    def written(self) -> tuple[int, str]:
        """The picture as text, and the sequence that it stands at."""
        identity, picture = json.dumps(self._identity), self.picture.text()
        return self.position, f'{{"identity": {identity}, "position": {self.position}, "picture": {picture}}}'

    async def run(self, stopping: asyncio.Event) -> None:
        """Follows until told to stop, or to a fact that can't be applied: `stuck` says which.

        Raises what else goes wrong in the picture or the tables: a process that hears nothing more must end.
        """
        over = asyncio.Event()
        listening = asyncio.create_task(self._listen())
        flushing = asyncio.create_task(self._flush_often(over))
        told = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait((told, listening, flushing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await ended(told, listening)
            over.set()
            await asyncio.wait((flushing,))
            failures = [error for part in (listening, flushing) if (error := _failure(part)) is not None]
            if all(isinstance(error, Permanent) for error in failures):
                # anything else may have left a picture that has taken in half a fact
                self._try_to_save(self.written()[1])
        for error in failures:
            if not isinstance(error, Permanent):
                raise error
            self.stuck = f"{type(error).__name__}: {error}"
            self._logger.error("the log holds a fact that this build can't apply", error=self.stuck)

    async def _listen(self) -> None:
        """Follows for ever; from what the tables hold again when they missed something, or the log did not answer."""
        tries = 0
        while True:
            self._missed, self._pending = False, []
            try:
                async with aclosing(self._log.follow(self._heard_to)) as batches:  # type: ignore[type-var]
                    async for batch in batches:
                        tries, self.deaf = 0, ""
                        if batch:
                            await self._take(batch)
                        if self._missed:
                            break
                    else:
                        return
            except Transient as error:
                # the stream, or the store that holds the archive's segments
                self._logger.warning("the log does not answer; asking again", error=str(error))
                self.deaf = f"log: {error}" if tries >= TRIES_IN_SILENCE else self.deaf
                await asyncio.sleep(doubled_s(FIRST_PAUSE_S, tries, LONGEST_PAUSE_S))
                tries += 1

    @property
    def _heard_to(self) -> int:
        return min(self.position, self.projected) if self.projection is not None else self.position

    async def _take(self, batch: Sequence[Raw]) -> None:
        for number, raw in enumerate(batch):
            if raw.sequence > self.position:
                one = heard(raw)
                if one is not None:
                    self.picture.apply(one)
                    tell = self.tells.get(type(one.fact))
                    if tell is not None:
                        tell(one)
                elif foreign(raw.subject, raw.headers):
                    self._logger.error("the log holds a message that is no fact: somebody published past the services",
                                       sequence=raw.sequence, subject=raw.subject)  # fmt: skip
                self.position = raw.sequence
            if number % 500 == 499:
                await asyncio.sleep(0)
        if self.projection is not None:
            self._pending += batch
            while len(self._pending) > MOST_PENDING:
                self._room.clear()
                await self._room.wait()
        self.changed.set()
        async with self._moved:
            self._moved.notify_all()

    async def reached(self, sequence: int, within_s: float = 5.0) -> None:
        """Returns once the picture holds the fact. Raises ReadModelBehind when it does not in time."""
        try:
            async with asyncio.timeout(within_s), self._moved:
                await self._moved.wait_for(lambda: self.position >= sequence)
        except TimeoutError as error:
            raise ReadModelBehind(f"read up to {self.position}, the fact is {sequence}") from error

    async def _flush_often(self, over: asyncio.Event) -> None:
        since_save = 0.0
        while not over.is_set():
            if not await comes(over, FLUSH_S):
                since_save += FLUSH_S
            await self._flush()
            if since_save >= CHECKPOINT_S:
                since_save = 0.0
                await asyncio.to_thread(self._try_to_save, self.written()[1])
        await self._flush()

    async def _flush(self) -> None:
        """Raises Permanent for a fact that the tables can't take in; none that follows it may reach them."""
        batch, self._pending = self._pending, []
        self._room.set()
        if self.projection is None:
            return
        if self._shut:
            await self._mend()
            return
        if not batch or self._missed:
            return
        try:
            async with self.tables:
                await asyncio.to_thread(self.projection.apply, batch)
        except duckdb.Error as error:
            self._shut = True
            self._break(error)
            return
        self.projected, self.broken, self._breaks = max(self.projected, batch[-1].sequence), "", 0
        fault("projected")

    def _break(self, error: Exception) -> None:
        """The tables are disposable, the loop is not: it goes on, and this process says that it is not ready."""
        self.broken = f"read model: {error}"
        self._mend_at = time.monotonic() + doubled_s(FIRST_PAUSE_S, self._breaks, LONGEST_PAUSE_S)
        self._breaks += 1
        self._logger.error("a read model could not take in a batch; its tables stand still for now", error=str(error))

    async def _mend(self) -> None:
        """Opens the tables anew; what they missed is read again."""
        assert self.projection is not None and self._open_projection is not None
        if time.monotonic() < self._mend_at:
            return
        try:
            async with self.tables:
                await asyncio.to_thread(self.projection.close)
                self.projection = await asyncio.to_thread(self._open_projection)
                self.projected = self.projection.position
        except (duckdb.Error, OSError, FileInUse) as error:
            self._break(error)
            return
        self._shut, self._missed = False, True
        if self.projected >= self.position:
            self.broken = ""

    def _try_to_save(self, text: str) -> None:
        try:
            self.save(text)
        except OSError as error:
            # a full disk costs a checkpoint: the next start reads more of the log
            self._logger.error("the picture's checkpoint could not be written", error=str(error))

    def save(self, text: str) -> None:
        """Puts down the picture that `written` wrote, so that the next start need not read the whole log."""
        if self._checkpoint is None or self._make_picture is None:
            return
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        draft = self._checkpoint.with_suffix(".tmp")
        draft.write_text(text)
        os.replace(draft, self._checkpoint)

    def close(self) -> None:
        if self.projection is not None:
            self.projection.close()


def _failure(part: asyncio.Task[None]) -> BaseException | None:
    return None if part.cancelled() else part.exception()


def heard(raw: Raw) -> Recorded | None:
    """The fact as folds see it; None for carried states, for users' own facts without a contract, and for what is none."""
    if raw.subject.endswith("." + CARRIED):
        return None
    if raw.subject.startswith("evt.ext-") and class_of(raw.subject) is None:
        return None
    if foreign(raw.subject, raw.headers):
        return None
    one = recorded(raw.sequence, raw.subject, raw.headers, raw.body, raw.at)
    return one if isinstance(one.fact, Fact) else None


async def whole(log: Log) -> list[Recorded]:
    """Every fact from the first to the log's present end; for logs that fit in memory."""
    found = list[Recorded]()
    async for batch in until(log, await log.end()):
        found += [one for raw in batch if (one := heard(raw)) is not None]
    return found
