"""The client process's way out: the site's worker of the engine connects to it and carries its letters to other sites.

A site only dials out, and its client process not even that: it waits until a worker is there.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from threading import Condition, Lock

from protocols.errors import MalformedMessage
from securefl.engines.nvflare.frames import Back, Call, Ready, decoded, encoded
from securefl.engines.pipe import Lost, Pipe


class Carrier:
    """Whichever worker connected last."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._sending = Lock()
        self._pipe: Pipe | None = None
        self._sites: frozenset[str] = frozenset()
        self._waiting: dict[int, Future[bytes]] = {}
        self._calls = 0

    def serve(self, pipe: Pipe, ready: Ready) -> None:
        """Take what a worker brings back, until it is gone."""
        with self._changed:
            self._pipe, self._sites = pipe, frozenset(ready.sites)
            self._changed.notify_all()
        try:
            while True:
                back = decoded(pipe.receive())
                if isinstance(back, Back) and (answer := self._waiting.get(back.number)) is not None:
                    answer.set_result(back.reply)
        except (Lost, MalformedMessage):
            with self._changed:
                if self._pipe is pipe:
                    self._pipe = None

    def carry(self, site: str, letter: bytes, seconds: float) -> bytes | None:
        """Take a letter to a site; its reply, or None where none came in time."""
        until = time.monotonic() + seconds
        with self._changed:
            self._changed.wait_for(lambda: self._pipe is not None, seconds)
            pipe = self._pipe
            if pipe is None or site not in self._sites:
                return None
            self._calls += 1
            number, answer = self._calls, Future[bytes]()
            self._waiting[number] = answer
        try:
            with self._sending:
                pipe.send(encoded(Call(number, site, letter, max(0.1, until - time.monotonic()))))
            return answer.result(max(0.0, until - time.monotonic())) or None
        except (Lost, Late):
            return None
        finally:
            self._waiting.pop(number, None)
