"""What this machine has and how busy it is: psutil for everyone, NVML where there are GPUs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil

from node_agent.gpus import Cards, nvml
from sparring.contracts.readings import Resources


class Machine:
    """Readings with the memory that differences need. A machine without a GPU is normal."""

    def __init__(self, folder: Path, cards: Any = None) -> None:
        """`cards` is the module `pynvml`, asked for when it is not given."""
        self._folder = folder
        self._cards = Cards(nvml() if cards is None else cards)
        self.cards = self._cards.count
        self._then = time.monotonic()
        self._network = psutil.net_io_counters()
        psutil.cpu_times_percent(None)

    def read(self) -> Resources:
        """The machine now. Tasks run niced, those of other agents here too: what is not niced is foreign load."""
        now = time.monotonic()
        seconds = max(0.1, now - self._then)
        self._then = now
        times = psutil.cpu_times_percent(None)
        busy = max(0.0, 1 - (times.idle + getattr(times, "iowait", 0.0)) / 100)
        niced = getattr(times, "nice", 0.0) / 100
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(self._folder))
        network = psutil.net_io_counters()
        moved = network.bytes_sent + network.bytes_recv - self._network.bytes_sent - self._network.bytes_recv
        self._network = network
        return Resources(
            cores=psutil.cpu_count() or 1,
            cpu_share=round(min(1.0, busy), 3),
            foreign_cpu_share=round(min(1.0, max(0.0, busy - niced)), 3),
            memory_total_bytes=memory.total,
            memory_available_bytes=memory.available,
            disk_free_bytes=disk.free,
            disk_total_bytes=disk.total,
            network_bytes_per_s=max(0.0, moved / seconds),
            gpus=self._cards.read(),
        )
