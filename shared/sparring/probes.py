"""`/live` and `/ready` of a process, for container engines and people."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

Answer = Callable[[], tuple[bool, Mapping[str, Any]]]


async def serve(port: int, live: Answer, ready: Answer, host: str = "127.0.0.1") -> asyncio.Server:
    """Answers 200 or 503 with a JSON body. Raises OSError when the port is taken."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                path = (await reader.readline()).split(b" ")[1:2]
                while (await reader.readline()).strip():
                    pass
            probe = {b"/live": live, b"/ready": ready}.get(path[0] if path else b"")
            good, body = probe() if probe else (False, {"error": "ask /live or /ready"})
            status = "200 OK" if good else ("503 Service Unavailable" if probe else "404 Not Found")
            payload = json.dumps(body, default=str).encode()
            head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n"
            writer.write(head.encode() + b"Connection: close\r\n\r\n" + payload)
            await writer.drain()
        except (TimeoutError, ConnectionError, ValueError):
            # a prober that went away, or spoke no HTTP
            writer.transport.abort()
        finally:
            writer.close()

    return await asyncio.start_server(answer, host, port)
