"""The coordinator's end of letters: one exchange with clients that are processes elsewhere, under one deadline.

Whatever carries letters may fail at any time and come back: a letter is sent again until its answer is there or time
is up. A client that has answered nothing by then is a dropout.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from concurrent.futures import TimeoutError as Late
from typing import Final

from msgspec import Struct

from protocols.aggregation.messages import InputRequest
from protocols.base import Messages
from protocols.errors import MalformedMessage
from protocols.wire import kind
from securefl.engines.letters import (
    Answer,
    Ask,
    Conflict,
    Hello,
    Here,
    Letter,
    Poll,
    Reply,
    Working,
    claim,
    encoded,
    reply,
)

Carry = Callable[[str, bytes, float], bytes | None]
"""Takes a letter to a client and brings the reply back; None where none came within so many seconds."""

_PAUSE: Final = 0.2  # seconds, before a letter is sent again
_TRY: Final = 20.0  # seconds for one letter and its reply; a client that works longer says so before
_SLOWEST: Final = 250_000  # bytes a second, on a line that is still waited for


class Deadlines(Struct, frozen=True):
    """Seconds for one exchange with all clients, and for the ones in which they train or measure."""

    exchange: float = 60.0
    training: float = 900.0

    def of(self, request: bytes) -> float:
        longer = {InputRequest.KIND}
        try:
            return self.training if kind(request) in longer else self.exchange
        except MalformedMessage:
            return self.exchange


class Correspondence:
    """With clients that ``carry`` reaches. ``sign`` makes a signature over a letter's claim."""

    def __init__(self, carry: Carry, deadlines: Deadlines, sign: Callable[[bytes], bytes] = lambda claim: b"") -> None:
        self._carry, self._deadlines, self._sign = carry, deadlines, sign

    def exchange(self, requests: Messages) -> Iterator[tuple[str, bytes]]:
        """Ask all at once; answers come as they arrive, until the deadline."""
        letters = dict(requests)
        seconds = max(map(self._deadlines.of, letters.values()), default=0.0)
        until = time.monotonic() + seconds
        answers = self._each(letters, lambda name: self._asked(name, letters[name], until), seconds)
        return ((name, answer) for name, answer in answers if answer is not None)

    def present(self, names: Collection[str], seconds: float) -> dict[str, bytes]:
        """Who is there, each with what tells its process from later ones; asked for so long."""
        until = time.monotonic() + seconds
        found = self._each(dict.fromkeys(names, b""), lambda name: self._greeted(name, until), seconds)
        return {name: process for name, process in found if process is not None}

    def _each(
        self, names: Mapping[str, bytes], ask: Callable[[str], bytes | None], seconds: float
    ) -> Iterator[tuple[str, bytes | None]]:
        if not names:
            return
        pool = ThreadPoolExecutor(len(names), "letters")
        try:
            asked = {pool.submit(ask, name): name for name in names}
            for done in as_completed(asked, seconds):
                yield asked.pop(done), done.result()
        except Late:
            pass
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # who is late is waited for by nobody

    def _asked(self, name: str, body: bytes, until: float) -> bytes | None:
        """One client's answer: ask, then poll; ask again where the letter was lost."""
        id = os.urandom(16)
        whole, poll = Ask(id, body, self._sign(claim(name, id, body))), Poll(id)
        following: Letter = whole
        while (left := until - time.monotonic()) > 0:
            match self._sent(name, following, min(left, _TRY + len(body) / _SLOWEST)):
                case Answer(answered, answer) if answered == id:
                    return answer
                case Working(answered) if answered == id:
                    following = poll
                case Conflict():
                    return None
                case _:
                    following = whole
                    time.sleep(min(_PAUSE, max(0.0, until - time.monotonic())))
        return None

    def _greeted(self, name: str, until: float) -> bytes | None:
        while (left := until - time.monotonic()) > 0:
            match self._sent(name, Hello(), min(left, _TRY)):
                case Here(process):
                    return process
            time.sleep(min(_PAUSE, max(0.0, until - time.monotonic())))
        return None

    def _sent(self, name: str, letter: Letter, seconds: float) -> Reply | None:
        brought = self._carry(name, encoded(letter), seconds)
        try:
            return None if brought is None else reply(brought)
        except MalformedMessage:
            return None
