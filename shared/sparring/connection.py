"""The end of a connection to the server."""

from __future__ import annotations

from nats.aio.client import Client


async def close(nc: Client) -> None:
    """Closes; what was published and not sent while the server was away is given up with it.

    nats-py writes it to the connection that is lost: asyncio raises OSError there, from Python 3.12 on TypeError.
    """
    was_there = nc.is_connected
    try:
        await nc.close()
    except (OSError, TypeError):
        if was_there:
            raise
