"""Nodes that are gone are forgotten after a while: ephemeral ones soon, others after a day."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import partial

from health.core.node import Node, forget
from health.core.nodes import together
from health.core.picture import HealthPicture
from sparring.contracts.base import Fact
from sparring.contracts.health import ForgetNode
from sparring.decider import Action, Context

GONE = ("lost", "drained")


def forgotten(ctx: Context, picture: HealthPicture) -> Iterable[Action]:
    found = {}
    for name, node in picture.all.nodes.items():
        after = ctx.settings.forget_ephemeral_s if node.ephemeral else ctx.settings.forget_s
        if node.state in GONE and node.since is not None and ctx.now >= node.since + timedelta(seconds=after):
            order = ForgetNode(node=name, by="health", reason=f"gone for {after / 3600:.0f} h")
            found[name] = partial(_still_gone, order, ctx)
    yield from together(found)


def _still_gone(order: ForgetNode, ctx: Context, node: Node) -> Sequence[Fact]:
    return forget(order, node, ctx)
