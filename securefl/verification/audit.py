"""The check of one ledger as :mod:`securefl.privacy.ledger` has it, of a file from anybody: it ends, and raises our own
errors alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from securefl.privacy import ledger
from securefl.privacy.ledger import Entry, Verified, Witness
from securefl.report import arithmetic


class _Export(Struct, frozen=True):
    """Of an export, the part that decides how long its check takes."""

    entries: tuple[Entry, ...]


def verify(path: Path, key: bytes | None, witnessed: Iterable[Witness] = ()) -> Verified:
    """As :func:`securefl.privacy.ledger.verify`. Raises ``BadInput``, too, for charges that nobody here can compose."""
    _require_few(ledger.read(path).entries)
    with arithmetic.explained():
        return ledger.verify(path, key, witnessed)


def verify_export(document: bytes, key: bytes | None, source: str) -> Verified:
    """The same of an export; ``source`` names it in errors."""
    try:
        entries = msgspec.json.decode(document, type=_Export).entries
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        entries = ()  # what is wrong with it is said below
    _require_few(entries)
    with arithmetic.explained():
        return ledger.verify_export(document, key, source=source)


def _require_few(entries: Sequence[Entry]) -> None:
    """Only charges under a budget are composed."""
    if any(entry.budget is not None for entry in entries):
        arithmetic.require_few(release for entry in entries for release in entry.releases)
