"""When Python looks for cyclic garbage: seldom, and not at what a process has loaded before it serves.

A look at everything stops the whole process, .2 to .4 s at ten thousand nodes; with Python's own numbers it came every
seven seconds there and found a few hundred objects. What is not cyclic is freed at once, as ever.
"""

from __future__ import annotations

import gc

# a look at the youngest once so many objects more were made than freed, at those that survived one every 50th time, at all of
# them every 200th of those. Python's own: 700, 10, 10. More of the youngest at once would be a pause of its own
YOUNGEST, MIDDLE, ALL = 2_000, 50, 200


def look_seldom() -> None:
    """For a process that lives long and knows much."""
    gc.set_threshold(YOUNGEST, MIDDLE, ALL)


def spare_what_is_there() -> None:
    """What this process holds now, its code and what it has loaded, is not looked at any more."""
    gc.collect()
    gc.freeze()
