"""Seats that a node starts with, by its class."""

from __future__ import annotations

from sparring.contracts.readings import Gpu, Heartbeat

SEAT_BYTES = 2 * 1024**3
DATACENTRE, SMALL_CARD = 24, 6
# what a card's name contains, the most telling first: seats that it keeps busy
GPU_SEATS = (
    ("H100", DATACENTRE), ("H200", DATACENTRE), ("GH200", DATACENTRE), ("B100", DATACENTRE), ("B200", DATACENTRE),
    ("A100", DATACENTRE), ("MI300", DATACENTRE), ("L40", 16), ("A40", 16), ("V100", 12), ("A10", 10), ("T4", 6), ("L4", 8),
    ("5090", 14), ("4090", 12), ("4080", 10), ("3090", 10), ("3080", 8), ("A6000", 12), ("2080", 6),
)  # fmt: skip
# many small cores share caches and memory channels: each is worth less
CORE_SEATS = ((16, 0.5), (64, 0.4))
MANY_CORES_SEATS = 0.3


def gpu_seats(gpu: Gpu) -> int:
    """A card that the table doesn't name keeps as many seats busy as a small one."""
    return next((seats for name, seats in GPU_SEATS if name in gpu.name), SMALL_CARD)


def core_seats(cores: float) -> float:
    """.5 a core up to 16, .4 up to 64, .3 above."""
    return cores * next((seats for most, seats in CORE_SEATS if cores <= most), MANY_CORES_SEATS)


def class_seats(heart: Heartbeat, sharing: int = 1) -> int:
    """Seats that a node starts with: by its cards, else by its cores; 2 GB of memory each; at least one.

    `sharing` agents on one machine divide its budget.
    """
    found = heart.resources
    by_compute = sum(gpu_seats(gpu) for gpu in found.gpus) or core_seats(found.cores)
    by_memory = found.memory_total_bytes / SEAT_BYTES
    seats = max(1, int(min(by_compute, by_memory) / max(1, sharing)))
    return max(1, min(seats, heart.seats)) if heart.seats else seats
