"""The SDK: orders that are not lost, questions that say as of when; nothing of NATS to know."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import nats.errors
from nats.aio.client import Client as Nats
from nats.js.errors import Error as JetStreamError

from sparring import clock
from sparring.contracts.base import Fact, Order
from sparring.decider import Recorded
from sparring.envelope import encode_order, recorded
from sparring.errors import BadInput, LogUnavailable
from sparring.hearing import heard
from sparring.log.jetstream import JetStreamLog
from sparring.place import Place, find
from sparring.reader import Reader, connect
from sparring.streams import COMMANDS
from sparring.subjects import ref_of

Sent = Literal["done", "spooled"]


def default_outbox() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "sparring" / "outbox"


class Client:
    """`async with Client(data=".sparring") as client: …`; every question takes `at=`.

    An order is on disk before it is sent and stays there until the server has it: `done` then, `spooled` before.
    """

    def __init__(
        self, nats: str | None = None, data: str | None = None, creds: str = "", outbox: Path | None = None
    ) -> None:
        self._asked, self._outbox = (nats, data, creds), outbox or default_outbox()
        self._nc: Nats | None = None
        self.place: Place | None = None

    async def __aenter__(self) -> Self:
        with contextlib.suppress(BadInput):
            await self._connected()
            await self.flush()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._nc is not None:
            await self._nc.close()

    async def _connected(self) -> Nats:
        if self._nc is None or not self._nc.is_connected:
            nats_url, data, creds = self._asked
            self.place = find(nats_url, data, creds)
            self._nc = await connect(self.place, name="client")
        return self._nc

    # ---- orders

    async def send(self, order: Order, *, id: str = "", expires_s: float | None = None, correlation: str = "") -> Sent:
        """Sends the order, now or at the next chance. The same `id` is obeyed once."""
        subject, headers, body = encode_order(
            order,
            id or clock.new_id(),
            now=clock.now(),
            source="client",
            expires_s=expires_s,
            correlation=correlation,
        )
        self._spool(subject, headers, body)
        try:
            await self.flush()
        except (BadInput, LogUnavailable):
            return "spooled"
        return "done"

    async def ask(self, order: Order, *, within_s: float = 10.0) -> list[Recorded]:
        """Sends the order and returns the facts that it led to; [] when it changed nothing within the time.

        Raises LogUnavailable when the server does not take the order.
        """
        nc = await self._connected()
        id = clock.new_id()
        subject, headers, body = encode_order(order, id, now=clock.now(), source="client")
        try:
            await nc.jetstream(timeout=5).publish(subject, body, headers=headers, stream=COMMANDS)
        except (nats.errors.Error, JetStreamError, TimeoutError, OSError) as error:
            raise LogUnavailable(f"{subject} was not acknowledged: {error!r}") from error
        log, pattern = JetStreamLog(nc), ref_of(order).pattern
        end = asyncio.get_running_loop().time() + within_s
        while asyncio.get_running_loop().time() < end:
            found = [raw for raw in await log.load(pattern) if raw.headers.get("Sparring-Order") == id]
            if found:
                return [recorded(raw.sequence, raw.subject, raw.headers, raw.body, raw.at) for raw in found]
            await asyncio.sleep(0.05)
        return []

    def _spool(self, subject: str, headers: dict[str, str], body: bytes) -> None:
        self._outbox.mkdir(parents=True, exist_ok=True)
        draft = self._outbox / f".{headers['ce-id']}.tmp"
        with draft.open("w") as file:
            json.dump({"subject": subject, "headers": headers, "body": body.decode()}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._outbox / f"{clock.now():%Y%m%d%H%M%S%f}-{headers['ce-id']}.json")

    async def flush(self) -> int:
        """Sends what waits in the outbox, oldest first; returns how many orders went out."""
        waiting = sorted(self._outbox.glob("*.json")) if self._outbox.exists() else []
        if not waiting:
            return 0
        js = (await self._connected()).jetstream(timeout=5)
        for file in waiting:
            order = json.loads(file.read_text())
            try:
                await js.publish(order["subject"], order["body"].encode(), headers=order["headers"], stream=COMMANDS)
            except (nats.errors.Error, JetStreamError, TimeoutError, OSError) as error:
                raise LogUnavailable(f"{order['subject']} was not acknowledged: {error!r}") from error
            file.unlink(missing_ok=True)
        return len(waiting)

    # ---- questions

    @contextlib.asynccontextmanager
    async def read(self, at: str | int | None = None) -> AsyncIterator[Reader]:
        """All services' tables at one moment: `async with client.read(at=48213) as tables: tables.rows("select …")`."""
        await self._connected()
        assert self.place is not None
        async with await Reader.open(self.place, None if at is None else str(at)) as reader:
            yield reader

    async def rows(self, sql: str, parameters: Sequence[Any] = (), at: str | int | None = None) -> list[dict[str, Any]]:
        async with self.read(at) as reader:
            return reader.rows(sql, parameters)

    async def subscribe(
        self, *classes: type[Fact], lane: str = "", since: int | None = None
    ) -> AsyncIterator[Recorded]:
        """Facts of the classes (all without any) as they happen, from the sequence `since` on, else from now."""
        log = JetStreamLog(await self._connected())
        start = await log.end() if since is None else since - 1
        async for batch in log.follow(start):
            for raw in batch:
                one = heard(raw)
                if one is None or (classes and not isinstance(one.fact, classes)):
                    continue
                if not lane or lane_of(one) == lane:
                    yield one


def lane_of(one: Recorded) -> str:
    """The lane that a fact is about; '' when it is about none."""
    lane = getattr(one.fact, "lane", "") or getattr(getattr(one.fact, "spec", None), "lane", "")
    return str(lane) or one.correlation.rpartition("-")[0]
