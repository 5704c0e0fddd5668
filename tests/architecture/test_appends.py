"""Facts come to be in one place: nothing but the log's own append publishes to the log's subjects."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
# the two homes of the log, where `check_guards` refuses what expects no sequence
HOMES = {"shared/sparring/log/jetstream.py", "shared/sparring/log/memory.py"}


def sources() -> Iterator[tuple[str, ast.AST]]:
    for folder in ("shared", "services"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if ".venv" not in path.parts:
                yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def publishes_to_the_log(tree: ast.AST) -> list[int]:
    """Lines that publish to a subject under `evt.` or to the stream EVENTS."""
    found = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr not in ("publish", "publish_async", "request"):
            continue
        subject = ast.unparse(node.args[0]) if node.args else ""
        stream = next((ast.unparse(one.value) for one in node.keywords if one.arg == "stream"), "")
        if "evt." in subject or stream in ("EVENTS", "'EVENTS'") or "subject_of" in subject:
            found.append(node.lineno)
    return found


def test_nothing_but_the_log_publishes_to_the_log() -> None:
    wrong = {path: lines for path, tree in sources() if path not in HOMES and (lines := publishes_to_the_log(tree))}
    assert wrong == {}


def test_the_check_sees_a_publisher() -> None:
    for text in (
        "js.publish('evt.a.b.c.D', b'')",
        "js.publish(subject, b'', stream=EVENTS)",
        "nc.publish(f'evt.{x}', b'')",
    ):
        assert publishes_to_the_log(ast.parse(text)) == [1]


def test_every_home_checks_its_guards_before_it_appends() -> None:
    for path, tree in sources():
        if path not in HOMES:
            continue
        appends = [
            node for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in ("append", "append_now")
        ]  # fmt: skip
        checked = [node for node in appends if "check_guards(" in ast.unparse(node)]
        assert checked, path
