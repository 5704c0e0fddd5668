"""Active and standby: one replica of a service holds its lease; the bucket's time to live ends it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import nats.errors
from nats.aio.client import Client
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from sparring.ending import comes
from sparring.streams import LEASE_TTL_S, LEASES

RENEW_S = LEASE_TTL_S / 3
_STREAM = f"KV_{LEASES}"


class Lease:
    """`held` is true only until this process's own deadline: the time before the request plus the time to live."""

    def __init__(self, nc: Client, name: str, holder: str) -> None:
        self._nc, self._js = nc, nc.jetstream(timeout=1.0)
        self._subject, self._holder = f"$KV.{LEASES}.{name}", holder
        self._revision = 0
        self._until = 0.0

    @property
    def held(self) -> bool:
        return time.monotonic() < self._until

    async def keep(self, stopping: asyncio.Event, fit: Callable[[], bool]) -> None:
        """Tries to hold the lease while it is fit to, until told to stop; then gives it back."""
        while not stopping.is_set():
            try:
                if fit():
                    await self._renew()
                else:
                    await self._give_back()
            except (nats.errors.Error, JetStreamError, TimeoutError, OSError):
                # lost the race, or nobody answered: what is held ends by itself
                self._revision = 0
            await comes(stopping, RENEW_S)
        await self._give_back()

    async def _renew(self) -> None:
        if not self._nc.is_connected:
            # it would lie in the client's buffer and say hours later that somebody leads
            return
        asked = time.monotonic()
        expected = self._revision if self.held else await self._free_revision()
        if expected is None:
            return
        # kv.update() would drop the time to live: the two headers are the compare-and-set
        headers = {"Nats-Expected-Last-Subject-Sequence": str(expected)}
        body = json.dumps({"holder": self._holder}).encode()
        ack = await self._js.publish(self._subject, body, headers=headers)
        self._revision, self._until = ack.seq, asked + LEASE_TTL_S

    async def _free_revision(self) -> int | None:
        try:
            last = await self._js.get_last_msg(_STREAM, self._subject)
        except NotFoundError:
            return 0
        operation = (last.headers or {}).get("KV-Operation")
        return last.seq if operation == "DEL" else None

    async def _give_back(self) -> None:
        if not self.held:
            return
        self._until = 0.0
        if not self._nc.is_connected:
            return
        headers = {"KV-Operation": "DEL", "Nats-Expected-Last-Subject-Sequence": str(self._revision)}
        try:
            await self._js.publish(self._subject, b"", headers=headers)
        except (nats.errors.Error, JetStreamError, TimeoutError, OSError):
            # it ends by itself
            self._revision = 0
