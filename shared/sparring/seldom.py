"""What goes wrong at every tick is said and counted once in a while, not at every tick."""

from __future__ import annotations

EVERY_S = 60.0
MOST = 200


class Seldom:
    """Whether a text is news: the first time, and again once a minute has passed since it last was."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._last: dict[str, float] = {}

    def news(self, text: str, now: float) -> bool:
        """`now` is a monotonic time in seconds."""
        if now - self._last.get(text, -self._every_s) < self._every_s:
            return False
        self._last[text] = now
        if len(self._last) > MOST:
            self._last = {one: then for one, then in self._last.items() if now - then < self._every_s}
        return True
