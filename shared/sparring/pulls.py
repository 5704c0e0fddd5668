"""Pulls from durables that rest while the server is out of reach."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
from faststream.nats import NatsBroker
from nats.aio.client import Client

REST_S = 1.0

Fetch = Callable[..., Awaitable[Any]]


def rest_while_cut_off(
    broker: NatsBroker, nc: Client, rest: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """For a broker that was started; pulls already under way are not changed.

    A pull that nobody can hear lies in the client's buffer, one a second for each durable. Once the buffer is full every
    further one is refused at once, and FastStream starts the refused loop again without a pause.
    """
    for one in broker.subscribers:
        subscription: Any = one.subscription  # type: ignore[attr-defined]
        subscription.fetch = _resting(subscription.fetch, nc, rest)


def _resting(fetch: Fetch, nc: Client, rest: Callable[[float], Awaitable[None]]) -> Fetch:
    async def fetched(*args: Any, **options: Any) -> Any:
        if nc.is_connected:
            return await fetch(*args, **options)
        await rest(REST_S)
        # what a pull says that found nothing
        raise nats.errors.TimeoutError

    return fetched
