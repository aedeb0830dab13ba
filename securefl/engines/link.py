"""One connection to a job that carries letters: whom it reaches, and who waits for what it brings back."""

from __future__ import annotations

import time
from collections.abc import Collection
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from itertools import count
from threading import Lock

from protocols.errors import MalformedMessage
from securefl.engines.nvflare.frames import Back, Call, decoded, encoded
from securefl.engines.pipe import Lost, Pipe


class Link:
    """``sites``: whom the job reaches. ``silent``: the last letter brought no reply in time. For any thread."""

    def __init__(self, pipe: Pipe, sites: Collection[str]) -> None:
        self.sites = frozenset(sites)
        self.silent = False
        self._pipe = pipe
        self._sending = Lock()
        self._numbers = count(1)
        self._waiting: dict[int, Future[bytes]] = {}

    def carry(self, site: str, letter: bytes, seconds: float) -> bytes | None:
        """Take a letter to a site; its reply, or None where none came in time. Raises ``Lost`` once the job is gone."""
        until = time.monotonic() + seconds
        number, answer = next(self._numbers), Future[bytes]()
        self._waiting[number] = answer
        try:
            self._send(Call(number, site, letter, max(0.1, seconds)), until)
            return answer.result(max(0.0, until - time.monotonic())) or None
        except Late:
            self.silent = True
            return None
        finally:
            self._waiting.pop(number, None)

    def listen(self) -> None:
        """Take what the job brings back, until it is gone or this is closed."""
        try:
            while True:
                back = decoded(self._pipe.receive())
                self.silent = False
                if isinstance(back, Back) and (answer := self._waiting.get(back.number)) is not None:
                    with suppress(InvalidStateError):  # brought twice
                        answer.set_result(back.reply)
        except (Lost, MalformedMessage):
            self.close()

    def close(self) -> None:
        """Whoever waits for a reply hears that none comes."""
        self._pipe.close()
        for answer in list(self._waiting.values()):
            with suppress(InvalidStateError):
                answer.set_exception(Lost("the job is gone"))

    def _send(self, call: Call, until: float) -> None:
        """Raises ``Late`` where another letter is not through by then: the job may hang."""
        if not self._sending.acquire(timeout=max(0.0, until - time.monotonic())):
            raise Late
        try:
            self._pipe.send(encoded(call))
        finally:
            self._sending.release()
