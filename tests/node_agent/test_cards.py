"""GPU readings by NVML, with a module in its place: what fails to answer costs itself and nothing else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from node_agent.gpus import Cards
from node_agent.machine import Machine


class NVMLError(Exception):
    pass


class Nvml:
    """Two cards; calls named in `broken` fail."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = NVML_MEMORY_ERROR_TYPE_UNCORRECTED = NVML_VOLATILE_ECC = 0

    def __init__(self, *broken: str) -> None:
        self._broken = broken

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name in object.__getattribute__(self, "_broken"):

            def fails(*_: Any) -> None:
                raise NVMLError(name)

            return fails
        return object.__getattribute__(self, name)

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return f"card {handle}"

    def nvmlDeviceGetMemoryInfo(self, _: int) -> Any:
        return SimpleNamespace(used=10, total=100)

    def nvmlDeviceGetUtilizationRates(self, _: int) -> Any:
        return SimpleNamespace(gpu=50)

    def nvmlDeviceGetPowerUsage(self, _: int) -> int:
        return 250_000

    def nvmlDeviceGetTemperature(self, *_: int) -> int:
        return 61

    def nvmlDeviceGetTotalEccErrors(self, *_: int) -> int:
        return 0


def test_every_card_says_utilisation_memory_temperature_power_and_ecc() -> None:
    one, two = Cards(Nvml()).read()
    assert (one.name, two.name) == ("card 0", "card 1")
    assert (one.utilisation, one.memory_used_bytes, one.memory_total_bytes) == (0.5, 10, 100)
    assert (one.temperature_c, one.power_w, one.ecc_errors) == (61.0, 250.0, 0)


def test_a_call_that_fails_loses_one_reading_and_not_the_beat(tmp_path: Path) -> None:
    calls = [name for name in dir(Nvml) if name.startswith("nvml") and name not in (
        "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetName")]  # fmt: skip
    whole = Cards(Nvml()).read()[0]
    for call in calls:
        hurt = Machine(tmp_path, Nvml(call)).read().gpus[0]
        lost = {name for name, value in hurt.model_dump().items() if value is None}
        assert lost
        assert all(
            getattr(hurt, name) == getattr(whole, name)
            for name in Cards(Nvml()).read()[0].model_dump()
            if name not in lost
        )


def test_a_driver_that_answers_nothing_is_a_machine_without_cards() -> None:
    assert Cards(Nvml("nvmlDeviceGetCount")).read() == ()
    assert Cards(Nvml("nvmlDeviceGetName")).read() == ()
    assert Cards(None).read() == ()
