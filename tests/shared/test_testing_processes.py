"""How a test's process ended: whoever asks, and however many at once, hears the same."""

from __future__ import annotations

import threading
import time

from sparring.testing.processes import Forked


def test_the_signal_that_ended_a_process_is_known_to_all_who_ask_at_once() -> None:
    for _ in range(20):
        process = Forked(target=time.sleep, args=(600,), daemon=True)
        process.start()
        answers: list[int | None] = []

        def ask(process: Forked = process, answers: list[int | None] = answers) -> None:
            while process.exitcode is None:
                pass
            answers.append(process.exitcode)

        asking = [threading.Thread(target=ask) for _ in range(4)]
        for one in asking:
            one.start()
        process.kill()
        for one in asking:
            one.join()
        assert answers == [-9] * 4
