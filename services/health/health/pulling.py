"""Consumers that health reads beside its handlers: pulled for ever, through a server that goes and comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.js.errors import Error as JetStreamError

from sparring.errors import LogUnavailable
from sparring.streams import Durable
from sparring.topology import declare_durable

TROUBLE = (nats.errors.Error, JetStreamError, LogUnavailable, TimeoutError, OSError)


async def pulled(shell: Any, durable: Durable, batch: int, what: str) -> AsyncIterator[Msg]:
    """Messages one after the other until the service stops; whoever takes one settles it."""
    pull: Any = None
    while not shell.stopping.is_set():
        try:
            if pull is None:
                await declare_durable(shell.js, durable)
                pull = await shell.js.pull_subscribe_bind(durable.name, durable.stream)
            messages = await pull.fetch(batch=batch, timeout=1)
        except (nats.errors.TimeoutError, TimeoutError):
            continue
        except TROUBLE as error:
            shell.log.warning(f"{what} can't be read", error=repr(error))
            await shell.pause(1.0)
            continue
        for message in messages:
            yield message
