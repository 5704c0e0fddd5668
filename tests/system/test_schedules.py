"""Orders, repeats, kills, partitions and lost acknowledgements in any order: nothing lost, nothing doubled, nothing stuck.

`SPARRING_SCHEDULES=200` runs more of them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats
from hypothesis import HealthCheck, Phase
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from nats.js import api
from service_stories import publish

from sparring import clock
from sparring.catalogue import services
from sparring.contracts.base import Order
from sparring.contracts.parts import Check
from sparring.contracts.sync import GamesRecorded, RecordGames
from sparring.contracts.training_slots import ClaimQueued, ClaimSlot, ReleaseSlot, SlotClaimed
from sparring.decider import Recorded
from sparring.hearing import whole
from sparring.invariants import violations
from sparring.log import JetStreamLog
from sparring.log.guards import unguarded
from sparring.server import EmbeddedServer, free_port
from sparring.streams import DLQ, EVENTS, STREAMS
from sparring.testing import eventually
from sparring.testing.processes import Replica, app_of
from sparring.testing.proxy import Proxy
from sparring.topology import declare_durable, declare_topology, declared_config

COUNT = int(os.environ.get("SPARRING_SCHEDULES", "20"))
SERVICES = ("training-slots", "sync")


class World:
    """One server and two services behind networks that can fail; lives through all schedules, and so does its log."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sparring-schedules-"))
        self.server = EmbeddedServer(self.folder, port=free_port())
        address = self.server.start()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.wait(self._declare(address.url))
        self.proxies = {name: Proxy(address.url) for name in SERVICES}
        self.replicas = {
            name: Replica(app_of(name), self.proxies[name].url, self.folder / "data").start() for name in SERVICES
        }
        self.sent: dict[str, Order] = {}
        self.released: set[int] = set()

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(120)

    async def _declare(self, url: str) -> None:
        self.nc = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.05)
        self.js = self.nc.jetstream(timeout=5)
        # a window of deduplication so short that repeats come after it
        events = next(one for one in STREAMS if one.name == EVENTS)
        await self.js.add_stream(api.StreamConfig(**{**declared_config(events, 1).__dict__, "duplicate_window": 0.2}))
        await declare_topology(self.nc)
        for one in services():
            for durable in one.durables() if one.name in SERVICES else ():
                await declare_durable(self.js, replace(durable, ack_wait_s=1.0, max_deliver=1000))

    async def publish(self, order: Order, id: str) -> None:
        await publish(self.js, order, id, message=clock.new_id())

    def revive(self) -> None:
        for proxy in self.proxies.values():
            proxy.heal()
        if self.server.process is None or self.server.process.poll() is not None:
            self.server.start()
        for replica in self.replicas.values():
            if not replica.running:
                replica.start()

    async def settled(self) -> list[Recorded]:
        async def quiet() -> bool:
            self.revive()
            for one in services():
                for durable in one.durables() if one.name in SERVICES else ():
                    try:
                        info = await self.js.consumer_info(durable.stream, durable.name)
                    except (nats.errors.Error, nats.js.errors.Error, TimeoutError):
                        return False
                    if info.num_pending or info.num_ack_pending:
                        return False
            return True

        await eventually(quiet, within_s=60, what="nothing is stuck")
        return await whole(JetStreamLog(self.nc))

    def close(self) -> None:
        for replica in self.replicas.values():
            replica.kill()
        self.wait(self.nc.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Schedules(RuleBasedStateMachine):
    """Rules are what may happen; what must hold is checked when everything has healed."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.broken = 0

    def _send(self, order: Order) -> None:
        self._server_up()
        id = f"order-{len(self.world.sent)}"
        self.world.sent[id] = order
        self.world.wait(self.world.publish(order, id))

    def _server_up(self) -> None:
        if self.world.server.process is None or self.world.server.process.poll() is not None:
            self.world.server.start()

    @rule(lane=st.sampled_from(["a", "b", "c", "d"]))
    def claim(self, lane: str) -> None:
        number = len(self.world.sent)
        self._send(ClaimSlot(lane=lane, holder=f"h-{number}", lease_s=36_000))

    @rule(games=st.integers(1, 50))
    def record(self, games: int) -> None:
        task = f"t{len(self.world.sent)}"
        check = Check(ok=True, games=games, positions=100, policy_coverage=1.0, mean_plies=10)
        self._send(RecordGames(batch=f"{task}-1", lane="hex", task=task, attempt=1, node="n1", model="", sha256="a" * 64,
                               bytes=10, games=games, positions=100, check=check))  # fmt: skip

    @rule(back=st.integers(0, 20))
    def send_again(self, back: int) -> None:
        """Redelivered after the window in which the server itself would notice."""
        self._server_up()
        for id in list(self.world.sent)[::-1][back : back + 1]:
            self.world.wait(self.world.publish(self.world.sent[id], id))

    @rule(name=st.sampled_from(SERVICES))
    def kill(self, name: str) -> None:
        self.world.replicas[name].kill()

    @rule(name=st.sampled_from(SERVICES))
    def start(self, name: str) -> None:
        if not self.world.replicas[name].running:
            self.world.replicas[name].start()

    @rule()
    def kill_server(self) -> None:
        self.world.server.kill()

    @rule(name=st.sampled_from(SERVICES))
    def cut(self, name: str) -> None:
        self.world.proxies[name].cut()

    @rule(name=st.sampled_from(SERVICES))
    def lose_answers(self, name: str) -> None:
        self.world.proxies[name].deafen()

    @rule(name=st.sampled_from(SERVICES), after_s=st.sampled_from([0.0, 0.3]))
    def heal(self, name: str, after_s: float) -> None:
        time.sleep(after_s)
        self.world.proxies[name].heal()

    def teardown(self) -> None:
        self.world.revive()
        facts = self.world.wait(self.world.settled())
        assert violations(facts) == []
        assert self.world.wait(unguarded(JetStreamLog(self.world.nc))) == []
        effects = Counter(one.order for one in facts if self._is_effect(one))
        served = Counter(one.fact.holder for one in facts if isinstance(one.fact, SlotClaimed))
        own = {id for id, order in self.world.sent.items() if isinstance(order, ClaimSlot | RecordGames)}
        assert own - set(effects) == set(), "lost"
        assert [id for id, times in effects.items() if times > 1] == [], "doubled"
        assert [holder for holder, times in served.items() if times > 1] == [], "served twice"
        assert self.world.wait(self.world.js.stream_info(DLQ)).state.messages == 0
        self._release(facts)

    def _is_effect(self, one: Recorded) -> bool:
        """The one fact that the order itself was sent for."""
        order = self.world.sent.get(one.order)
        if isinstance(order, ClaimSlot):
            return isinstance(one.fact, SlotClaimed | ClaimQueued) and one.fact.holder == order.holder
        return isinstance(order, RecordGames) and isinstance(one.fact, GamesRecorded)

    def _release(self, facts: list[Recorded]) -> None:
        """Slots go round, so that the next schedule finds other holders."""
        claimed = [
            one for one in facts if isinstance(one.fact, SlotClaimed) and one.sequence not in self.world.released
        ]
        for one in claimed[:2]:
            self.world.released.add(one.sequence)
            self._send(ReleaseSlot(lane=one.fact.lane, holder=one.fact.holder, token=one.sequence))  # type: ignore[attr-defined]


def test_any_schedule_of_faults_loses_doubles_and_blocks_nothing() -> None:
    Schedules.world = World()
    try:
        run_state_machine_as_test(
            Schedules,
            settings=examples(
                max_examples=COUNT, stateful_step_count=8, deadline=None, database=None, derandomize=COUNT <= 20,
                phases=[Phase.generate], suppress_health_check=list(HealthCheck),
            ),
        )  # fmt: skip
    finally:
        Schedules.world.close()
