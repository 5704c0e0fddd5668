"""Retired bytes are deleted, and one that can't be keeps nobody else waiting."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from sparring.artifacts import StoreUnavailable
from sync import workers
from sync.workers import delete_retired


async def test_one_that_cannot_be_deleted_keeps_nobody_waiting_and_a_follower_deletes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "SWEEP_S", 0.001)
    undeleted = {f"b{number}/0": f"u{number}" for number in range(20)}
    deleted, asked, enough = list[str](), list[str](), asyncio.Event()
    stopping = asyncio.Event()

    async def delete(url: str) -> None:
        asked.append(url)
        if url in ("u0", "u1", "u2", "u3"):
            raise OSError(13, "Permission denied") if url == "u0" else StoreUnavailable(url)
        deleted.append(url)
        if len(deleted) == 16:
            enough.set()

    shell: Any = SimpleNamespace(
        stopping=stopping, leads=False, picture=SimpleNamespace(undeleted=undeleted), log=structlog.get_logger(),
        artifacts=SimpleNamespace(delete=delete),
    )  # fmt: skip
    sweeping = asyncio.create_task(delete_retired(shell))
    await asyncio.sleep(0)
    assert asked == []
    shell.leads = True
    await asyncio.wait_for(enough.wait(), 30)
    stopping.set()
    await sweeping
    assert set(undeleted.values()) == {"u0", "u1", "u2", "u3"}
    assert sorted(deleted) == sorted({f"u{number}" for number in range(4, 20)})
