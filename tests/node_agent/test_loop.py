"""Row 19: the loop never stands still; when it does, it says so."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from node_agent.beats import Beats

ROOT = Path(__file__).resolve().parents[2]
BLOCKING = {"time.sleep", "subprocess.run", "subprocess.call", "subprocess.check_output", "os.system",
            "urllib.request.urlopen", "requests.get", "requests.post", "shutil.rmtree", "shutil.copyfileobj"}  # fmt: skip


def awaited_code(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls in the bodies of async functions, without those of functions defined there: they may run in threads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef):
            waiting = list(node.body)
            while waiting:
                one = waiting.pop()
                if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                    continue
                if isinstance(one, ast.Call):
                    yield one
                waiting += list(ast.iter_child_nodes(one))  # type: ignore[arg-type]


def test_rule_19_nothing_that_blocks_is_called_on_the_loop_of_a_service_or_an_agent() -> None:
    found = []
    for folder in ("services", "shared/sparring"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            if "testing" in file.parts or "cli" in file.parts:
                continue
            for call in awaited_code(ast.parse(file.read_text())):
                if ast.unparse(call.func) in BLOCKING:
                    found.append(f"{file.relative_to(ROOT)}:{call.lineno} {ast.unparse(call.func)}")
    assert found == []


async def test_rule_19_a_loop_that_stood_still_is_in_the_next_beat() -> None:
    beats = Beats(SimpleNamespace(log=SimpleNamespace(warning=logging.getLogger("test").warning)))  # type: ignore[arg-type]
    beats._agent.log.warning = lambda *_, **__: None  # type: ignore[method-assign]
    watching = asyncio.create_task(beats.watch_loop())
    await asyncio.sleep(0)
    time.sleep(1.2)  # noqa: ASYNC251
    while beats.loop_lag_s == 0.0:
        await asyncio.sleep(0.01)
    assert beats.loop_lag_s >= 0.6
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
