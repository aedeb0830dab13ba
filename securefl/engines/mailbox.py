"""The client's end of letters: every request is answered once, one after the other, and the answer kept a while."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Lock
from typing import Final

from protocols.primitives import digest
from securefl.engines.letters import Answer, Ask, Conflict, Hello, Here, Poll, Reply, Unknown, Working, encoded, letter

_KEPT: Final = 4  # letters: that of this exchange, and of those that a slow carrier may still ask about


@dataclass(frozen=True)
class _Taken:
    body: bytes  # its digest
    answer: Future[bytes]


class Mailbox:
    """Of one client process. ``handle`` is the client's one verb; it is called for one letter at a time. ``check``
    raises ``Forged`` for a letter that is not from whoever may ask.

    What is kept ends with the process: a client that restarts has left its session anyway, and says so itself.
    """

    def __init__(self, handle: Callable[[bytes], bytes], check: Callable[[Ask], None] = lambda ask: None) -> None:
        self._handle, self._check = handle, check
        self._process = os.urandom(16)
        self._taken: dict[bytes, _Taken] = {}
        self._lock = Lock()
        self._worker = ThreadPoolExecutor(1, "client")

    def receive(self, data: bytes, patience: float) -> bytes:
        """Answer a letter; one that is not answered in ``patience`` seconds is being worked on.

        Raises ``MalformedMessage`` for what is no letter, ``Forged`` as ``check`` does.
        """
        return encoded(self._reply(letter(data), patience))

    def close(self) -> None:
        """Take no more; what is being answered is finished."""
        self._worker.shutdown()

    def _reply(self, received: Hello | Ask | Poll, patience: float) -> Reply:
        match received:
            case Hello():
                return Here(self._process)
            case Ask(id, body):
                self._check(received)
                taken = self._take(id, body)
            case Poll(id):
                taken = self._taken.get(id)
        if taken is None:
            return Unknown(id)
        if isinstance(received, Ask) and taken.body != digest("letter", received.body):
            return Conflict(id)
        wait([taken.answer], patience)
        return Answer(id, taken.answer.result()) if taken.answer.done() else Working(id)

    def _take(self, id: bytes, body: bytes) -> _Taken | None:
        """The letter as it was taken first; None while too many wait to be answered."""
        with self._lock:
            if id in self._taken:
                return self._taken[id]
            answered = [other for other, taken in self._taken.items() if taken.answer.done()]
            for oldest in answered[: max(0, len(self._taken) - _KEPT + 1)]:
                del self._taken[oldest]
            if len(self._taken) >= _KEPT:
                return None
            taken = self._taken[id] = _Taken(digest("letter", body), self._worker.submit(self._handle, body))
            return taken
