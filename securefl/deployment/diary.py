"""What a site writes down as it serves: for machines nothing that depends on data, for its owner why it refused.

``site.log`` has one JSON object a line: kinds, bytes and coarse durations. ``owner.log`` has words, which may say
something of records: it is the owner's own, and nothing sends it anywhere. Both are rotated.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

import msgspec

from protocols.aggregation.messages import Refusal
from protocols.errors import MalformedMessage
from protocols.wire import decode, kind
from securefl.coarse import coarse
from securefl.printable import printable
from securefl.transcript import KINDS

_BYTES: Final = 10 * 1024 * 1024
_FILES: Final = 5
OWNER: Final = "owner.log"


class Diary:
    """``log`` is the path of the one for machines; the owner's lies beside it."""

    def __init__(self, log: Path) -> None:
        self._machines = _logger(f"securefl.site.{log}", log)
        self._owner = _logger(f"securefl.owner.{log}", log.with_name(OWNER))

    def tell(self, what: str) -> None:
        """For the owner: one entry, whatever is in it. A text of several lines goes on indented."""
        self._owner.info("%s %s", _now(), "\n    ".join(map(printable, what.splitlines())))

    def event(self, event: str, **facts: str | int) -> None:
        """For machines. ``facts`` must not depend on records."""
        self._machines.info("%s", msgspec.json.encode({"time": _now(), "event": event, **facts}).decode())

    @contextmanager
    def answering(self, asked: int) -> Iterator[Answering]:
        """Writes down one answer: its kind, size, and roughly how long it took."""
        started, answering = time.monotonic(), Answering()
        try:
            yield answering
        finally:
            taken = coarse(time.monotonic() - started)
            name = KINDS.get(asked, "other")
            self.event("answered", kind=name, outcome=answering.outcome, bytes=answering.sent, took=taken)


class Answering:
    """What became of one request."""

    outcome = "failed"
    sent = 0

    def answered(self, reply: bytes) -> None:
        self.sent = len(reply)
        self.outcome = "answered"
        try:
            if kind(reply) == Refusal.KIND:
                self.outcome = f"refused: {decode(reply, Refusal).reason}"
        except MalformedMessage:
            self.outcome = "malformed"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class _Private(RotatingFileHandler):
    """Each of its files is the owner's own, those that are begun later, too."""

    def _open(self) -> TextIOWrapper:
        os.close(os.open(self.baseFilename, os.O_CREAT | os.O_APPEND, 0o600))
        return super()._open()


def _logger(name: str, path: Path) -> logging.Logger:
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not logger.handlers:
        handler = _Private(path, maxBytes=_BYTES, backupCount=_FILES, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    return logger
