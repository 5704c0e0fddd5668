"""A network that fails on demand: a TCP proxy between a client and a server that can be cut, deafened and healed."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

LONGEST_WORD = 64


class Proxy:
    """`with Proxy(url) as proxy:` — connect to `proxy.url`.

    `cut` ends all connections and refuses new ones; `deafen` lets the client speak, but no answer comes back: what it
    published is stored and never acknowledged; `deafen_at` does so from the moment on at which the client has said
    something for the n-th time; `heal` ends all of it.
    """

    def __init__(self, url: str) -> None:
        host, _, port = url.split("://", 1)[-1].rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._links: list[socket.socket] = []
        self._open, self._answers = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._word, self._times = b"", 0
        # bytes of answers that were lost
        self.swallowed = 0
        self.heal()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        self._open.clear()
        self._drop()

    def deafen(self) -> None:
        self._answers.clear()

    def deafen_at(self, word: bytes, times: int = 1) -> None:
        """What the client says with `word`, such as `PUB evt.`, arrives; from its n-th time on nothing comes back."""
        self._word, self._times = word, times

    @property
    def deaf(self) -> bool:
        return not self._answers.is_set()

    def heal(self) -> None:
        """Connections that lost answers are ended first: a stream with a hole would be no TCP."""
        if not self._answers.is_set():
            self._drop()
        self._word = b""
        self._answers.set()
        self._open.set()

    def close(self) -> None:
        self._open.clear()
        self._listener.close()
        self._drop()

    def _drop(self) -> None:
        with self._lock:
            links, self._links = self._links, []
        for one in links:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._open.is_set():
                near.close()
                continue
            try:
                far = socket.create_connection(self._target, 2)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._links += [near, far]
            threading.Thread(target=self._carry, args=(near, far, self._heard), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, self._let), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, passes: Callable[[bytes, bytes], bool]) -> None:
        tail = b""
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if passes(tail, data):
                    sink.sendall(data)
                tail = data[-LONGEST_WORD:]
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _let(self, tail: bytes, data: bytes) -> bool:  # noqa: ARG002
        if self._answers.is_set():
            return True
        self.swallowed += len(data)
        return False

    def _heard(self, tail: bytes, data: bytes) -> bool:
        """What the client says always passes; the answers stop before the word can be answered."""
        with self._lock:
            if self._word:
                # a word that lies across two pieces counts with the second one
                begun = tail[-(len(self._word) - 1) :]
                self._times -= (begun + data).count(self._word)
                if self._times <= 0:
                    self._word = b""
                    self._answers.clear()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
