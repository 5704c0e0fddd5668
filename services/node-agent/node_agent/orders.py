"""What this node is told, and what it does about it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import nats.errors
from nats.aio.msg import Msg

from node_agent.roster import Running
from node_agent.trouble import TROUBLE
from node_agent.work import run_task
from sparring import clock, telemetry
from sparring.contracts.node_agent import DrainAgent, HaltNode, ReleaseCustody, StartTask, StopTask, UploadBatch
from sparring.envelope import Envelope, decode, read_envelope
from sparring.errors import Permanent
from sparring.streams import COMMANDS, Durable
from sparring.subjects import token

if TYPE_CHECKING:
    from node_agent.agent import Agent

# a pull asks the server for something; ten thousand nodes that ask every second would be half of its work
PULL_S = 5.0
# orders come again within minutes; a node starts fewer tasks in a day
KNOWN = 20_000


def durable_of(node: str) -> Durable:
    """The consumer of a node's orders: what was said before the node first came is not for it."""
    name = token(node)
    subjects = (f"cmd.node-agent.node.{name}.>",)
    return Durable(f"agent-{name}", COMMANDS, subjects, start="now", ack_wait_s=30.0, max_deliver=-1)


class Orders:
    """Obeys; every order may come twice."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._known: dict[str, None] = {}

    async def obey(self) -> None:
        agent = self._agent
        js = agent.nc.jetstream(timeout=5)
        pull = await js.pull_subscribe_bind(durable_of(agent.settings.node).name, COMMANDS)
        while True:
            try:
                # one at a time: larger fetches wait for their whole time when fewer are there
                messages = await pull.fetch(batch=1, timeout=PULL_S)
            except (nats.errors.TimeoutError, TimeoutError):
                continue
            except TROUBLE as error:
                agent.log.warning("orders can't be read", error=repr(error))
                await asyncio.sleep(0.5)
                continue
            for message in messages:
                try:
                    await self._on_order(message)
                # it comes again after its ack_wait; an agent that is deaf from here on would keep its node's seats
                except Exception:
                    agent.log.error(
                        "an order could not be obeyed; it comes again", subject=message.subject, exc_info=True
                    )

    async def _on_order(self, message: Msg) -> None:
        agent = self._agent
        headers = dict(message.headers or {})
        try:
            order = decode(message.subject, headers, message.data)
        except Permanent as error:
            agent.log.error("an order was not understood", subject=message.subject, error=str(error))
            await message.term()
            return
        told = read_envelope(headers, clock.now())
        match order:
            case StartTask():
                self.start(order, told.traceparent)
            case StopTask(task=task, attempt=attempt, reason=reason):
                self.stop(f"{task}-{attempt}", reason, agent.settings.grace_s)
            case UploadBatch():
                agent.go(self._upload(order, told))
            case ReleaseCustody(batch=batch):
                agent.custody.release(batch)
            case HaltNode(reason=reason):
                self.halt(reason)
            case DrainAgent(grace_s=grace_s, reason=reason):
                agent.leave(reason, grace_s)
        with contextlib.suppress(nats.errors.Error):
            await message.ack()

    async def _upload(self, order: UploadBatch, told: Envelope) -> None:
        with telemetry.span("upload", traceparent=told.traceparent, correlation=told.correlation, batch=order.batch,
                            node=self._agent.settings.node):  # fmt: skip
            await self._agent.custody.upload(order, told.correlation)

    def start(self, order: StartTask, traceparent: str = "") -> None:
        """Starts a task once, however often it is ordered; orders for an earlier life of this node are void."""
        agent, running = self._agent, Running(order, traceparent)
        if order.boot != agent.boot or running.key in self._known or agent.draining:
            return
        # first: what could not be written down was not begun
        agent.running.note(running)
        self._known[running.key] = None
        while len(self._known) > KNOWN:
            del self._known[next(iter(self._known))]
        agent.running[running.key] = running
        agent.go(run_task(agent, running))

    def halt(self, reason: str) -> None:
        """Every child now, no grace."""
        for key in list(self._agent.running):
            self.stop(key, f"halted: {reason}", 0.0)

    def stop(self, key: str, reason: str, grace_s: float) -> None:
        """A SIGTERM and the grace time to write what there is, and as long again to store it; without grace the end.

        What has no program yet, or none any more, stops as well: no input is waited for.
        """
        running = self._agent.running.get(key)
        if running is None:
            return
        running.stop(reason)
        if grace_s <= 0:
            running.over.set()
            if running.child is not None:
                running.child.kill(reason)
            return
        if running.child is not None:
            running.child.terminate(reason)
        self._agent.go(self._end_later(running, grace_s))

    async def _end_later(self, running: Running, grace_s: float) -> None:
        await asyncio.sleep(grace_s)
        if running.child is not None and running.child.pid:
            running.child.kill("the grace time is over")
        await asyncio.sleep(grace_s)
        running.over.set()
