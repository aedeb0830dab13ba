"""The coordinator's end of letters: one exchange with clients that are processes elsewhere, under one deadline.

Whatever carries letters may fail at any time and come back: a letter is sent again until its answer is there or time
is up. A client that has answered nothing by then is a dropout.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from concurrent.futures import TimeoutError as Late
from threading import Event
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


class _Time:
    """What is left of an exchange's seconds; none once it is over, so that no thread outlives it by long."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._over = Event()

    @property
    def seconds(self) -> float:
        return 0.0 if self._over.is_set() else max(0.0, self._end - time.monotonic())

    def pause(self) -> None:
        self._over.wait(min(_PAUSE, self.seconds))

    def end(self) -> None:
        self._over.set()


class Correspondence:
    """With clients that ``carry`` reaches. ``sign`` makes a signature over a letter's claim."""

    def __init__(self, carry: Carry, deadlines: Deadlines, sign: Callable[[bytes], bytes] = lambda claim: b"") -> None:
        self._carry, self._deadlines, self._sign = carry, deadlines, sign

    def exchange(self, requests: Messages) -> Iterator[tuple[str, bytes]]:
        """Ask all at once; answers come as they arrive, until the deadline, or until nobody reads on."""
        letters = dict(requests)
        time_left = _Time(max(map(self._deadlines.of, letters.values()), default=0.0))
        answers = self._each(letters, lambda name: self._asked(name, letters[name], time_left), time_left)
        return ((name, answer) for name, answer in answers if answer is not None)

    def present(self, names: Collection[str], seconds: float) -> dict[str, bytes]:
        """Who is there, each with what tells its process from later ones; asked for so long."""
        time_left = _Time(seconds)
        found = self._each(names, lambda name: self._greeted(name, time_left), time_left)
        return {name: process for name, process in found if process is not None}

    def _each(
        self, names: Collection[str], ask: Callable[[str], bytes | None], time_left: _Time
    ) -> Iterator[tuple[str, bytes | None]]:
        if not names:
            return
        pool = ThreadPoolExecutor(len(names), "letters")
        try:
            asked = {pool.submit(ask, name): name for name in names}
            for done in as_completed(asked, time_left.seconds):
                yield asked.pop(done), done.result()
        except Late:
            pass
        finally:
            time_left.end()  # who is late is waited for by nobody
            pool.shutdown(wait=False, cancel_futures=True)

    def _asked(self, name: str, body: bytes, time_left: _Time) -> bytes | None:
        """One client's answer: ask, then poll; ask again where the letter was lost."""
        id = os.urandom(16)
        whole, poll = Ask(id, body, self._sign(claim(name, id, body))), Poll(id)
        following: Letter = whole
        while left := time_left.seconds:
            match self._sent(name, following, min(left, _TRY + len(body) / _SLOWEST)):
                case Answer(answered, answer) if answered == id:
                    return answer
                case Working(answered) if answered == id:
                    following = poll
                case Conflict():
                    return None
                case _:
                    following = whole
                    time_left.pause()
        return None

    def _greeted(self, name: str, time_left: _Time) -> bytes | None:
        while left := time_left.seconds:
            match self._sent(name, Hello(), min(left, _TRY)):
                case Here(process):
                    return process
            time_left.pause()
        return None

    def _sent(self, name: str, letter: Letter, seconds: float) -> Reply | None:
        brought = self._carry(name, encoded(letter), seconds)
        try:
            return None if brought is None else reply(brought)
        except MalformedMessage:
            return None
