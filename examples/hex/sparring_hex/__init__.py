"""Hex that really learns, on two CPU cores, in minutes."""

import os

# One process per seat: a linear algebra library that opens threads of its own makes the seats fight for the cores.
# It reads these once, when numpy is first imported.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
