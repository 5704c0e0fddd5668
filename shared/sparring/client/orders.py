"""Orders that are not lost: on disk before they are sent, and until the server has them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path
from typing import Literal, Self

import nats.errors
from nats.aio.client import Client as Nats
from nats.js.errors import Error as JetStreamError

from sparring import clock, telemetry
from sparring.connection import close
from sparring.contracts.base import Order
from sparring.decider import Recorded
from sparring.envelope import ORDER, encode_order, recorded
from sparring.errors import BadInput, LogUnavailable
from sparring.known import check_known
from sparring.log.jetstream import JetStreamLog
from sparring.place import Place, find
from sparring.reader import connect
from sparring.streams import COMMANDS
from sparring.subjects import ref_of

Sent = Literal["done", "spooled"]


def default_outbox() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "sparring" / "outbox"


class Orders:
    """A connection that is made when it is needed, and an outbox.

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
            await close(self._nc)
        await asyncio.to_thread(telemetry.send_now)

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
            traceparent=telemetry.current_traceparent(),
        )
        self._spool(subject, headers, body)
        try:
            await self.flush()
        except (BadInput, LogUnavailable):
            return "spooled"
        return "done"

    async def ask(self, order: Order, *, within_s: float = 10.0, expires_s: float | None = None) -> list[Recorded]:
        """Sends the order and returns the facts that it led to; [] when it changed nothing within the time.

        Raises LogUnavailable when the server does not take the order.
        """
        log, pattern = JetStreamLog(await self._connected()), ref_of(order).pattern
        before = await log.last(pattern)
        id = await self.publish(order, expires_s=expires_s)
        end = asyncio.get_running_loop().time() + within_s
        while asyncio.get_running_loop().time() < end:
            found = [raw for raw in await log.load(pattern, before) if raw.headers.get(ORDER) == id]
            if found:
                return [recorded(raw.sequence, raw.subject, raw.headers, raw.body, raw.at) for raw in found]
            await asyncio.sleep(0.05)
        return []

    async def check_known(self, field: str, name: str) -> None:
        """Raises BadInput for a `lane`, `node` or `task` that the log does not know, and LogUnavailable."""
        await check_known(JetStreamLog(await self._connected()), field, name)

    async def check_lane(self, lane: str) -> None:
        """Raises BadInput for a lane that nobody registered; while no server answers nobody can say."""
        try:
            log = JetStreamLog(await self._connected())
        except BadInput:
            return
        with contextlib.suppress(LogUnavailable):
            await check_known(log, "lane", lane)

    async def publish(self, order: Order, *, expires_s: float | None = None) -> str:
        """Sends the order past the outbox, for what is worthless later; returns its id. Raises LogUnavailable."""
        nc, id = await self._connected(), clock.new_id()
        trace = telemetry.current_traceparent()
        subject, headers, body = encode_order(
            order, id, now=clock.now(), source="client", expires_s=expires_s, traceparent=trace
        )
        try:
            await nc.jetstream(timeout=5).publish(subject, body, headers=headers, stream=COMMANDS)
        except (nats.errors.Error, JetStreamError, TimeoutError, OSError) as error:
            raise LogUnavailable(f"{subject} was not acknowledged: {error!r}") from error
        return id

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
            try:
                order = json.loads(file.read_text())
            except FileNotFoundError:
                # another process of this user has sent it in this moment
                continue
            try:
                await js.publish(order["subject"], order["body"].encode(), headers=order["headers"], stream=COMMANDS)
            except (nats.errors.Error, JetStreamError, TimeoutError, OSError) as error:
                raise LogUnavailable(f"{order['subject']} was not acknowledged: {error!r}") from error
            file.unlink(missing_ok=True)
        return len(waiting)
