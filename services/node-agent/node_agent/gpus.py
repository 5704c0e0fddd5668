"""The cards of this machine by NVML: what one card, or one sensor, fails to say hides nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sparring.contracts.readings import Gpu

T = TypeVar("T")


class Cards:
    """Cards by index; none on a machine without a driver. `nvml` is the module `pynvml`, or None."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self.count: int = (self._asked(nvml.nvmlDeviceGetCount) or 0) if nvml is not None else 0

    def read(self) -> tuple[Gpu, ...]:
        """What each card says now; a card that does not even name itself is left out."""
        return tuple(one for index in range(self.count) if (one := self._card(index)) is not None)

    def _card(self, index: int) -> Gpu | None:
        nvml = self._nvml
        handle = self._asked(lambda: nvml.nvmlDeviceGetHandleByIndex(index))
        name = self._asked(lambda: nvml.nvmlDeviceGetName(handle)) if handle is not None else None
        if name is None:
            return None
        memory = self._asked(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        busy = self._asked(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        power = self._asked(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        warmth = self._asked(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        return Gpu(
            name=name if isinstance(name, str) else name.decode(),
            utilisation=busy / 100 if busy is not None else None,
            memory_used_bytes=memory.used if memory is not None else None,
            memory_total_bytes=memory.total if memory is not None else None,
            temperature_c=float(warmth) if warmth is not None else None,
            power_w=power / 1000 if power is not None else None,
            ecc_errors=self._asked(lambda: nvml.nvmlDeviceGetTotalEccErrors(
                handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC)),
        )  # fmt: skip

    def _asked(self, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except self._nvml.NVMLError:
            return None


def nvml() -> Any:
    """The module `pynvml` once the driver answers; None without driver or module."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError, OSError):
        return None
    return pynvml
