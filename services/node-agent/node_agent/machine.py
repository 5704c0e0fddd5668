"""What this machine has and how busy it is: psutil for everyone, NVML where there are GPUs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from sparring.contracts.readings import Gpu, Resources


class Machine:
    """Readings with the memory that differences need. A machine without a GPU is normal."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._nvml = _nvml()
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
            gpus=tuple(self._gpus()),
        )

    def _gpus(self) -> Iterable[Gpu]:
        if self._nvml is None:
            return
        nvml = self._nvml
        for index in range(nvml.nvmlDeviceGetCount()):
            # one broken card must not hide the others
            with contextlib.suppress(nvml.NVMLError):
                yield _gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(index))


def _nvml() -> Any:
    try:
        import pynvml

        pynvml.nvmlInit()
    except (ImportError, OSError):
        return None
    except pynvml.NVMLError:
        return None
    return pynvml


def _gpu(nvml: Any, handle: Any) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    name = nvml.nvmlDeviceGetName(handle)
    power = ecc = None
    with contextlib.suppress(nvml.NVMLError):
        power = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
    with contextlib.suppress(nvml.NVMLError):
        ecc = nvml.nvmlDeviceGetTotalEccErrors(handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC)
    return Gpu(
        name=name if isinstance(name, str) else name.decode(),
        utilisation=nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        memory_used_bytes=memory.used,
        memory_total_bytes=memory.total,
        temperature_c=float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        power_w=power,
        ecc_errors=ecc,
    )
