"""The folder of a run: what its files are called, and how lines are added so that a crash costs at most the last."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import msgspec
from msgspec import Struct

from securefl.errors import NotARun

JOB: Final = "job.toml"
PLAN: Final = "plan.json"
HISTORY: Final = "history.jsonl"
TRANSCRIPT: Final = "transcript.jsonl"
SUMMARY: Final = "summary.json"
STATEMENTS: Final = "statements.json"
MODEL: Final = "model.safetensors"
STORE: Final = "store.sqlite"

T = TypeVar("T")


def lines(path: Path, record: type[T]) -> list[T]:
    """One value a line; no file, no values. Raises ``NotARun`` for what cannot be read."""
    if not path.exists():
        return []
    # A crash can cut the last line short.
    whole = path.read_bytes().rpartition(b"\n")[0]
    try:
        return [msgspec.json.decode(line, type=record) for line in whole.splitlines() if line]
    except msgspec.DecodeError as error:
        raise NotARun(f"{path} is damaged ({error}): restore it from a backup") from error


def mend(path: Path) -> None:
    """Cut off a last line that a crash left without its end, so that nothing is written behind it."""
    if path.exists():
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def append(file: BinaryIO, record: Struct) -> None:
    """One value as one line."""
    file.write(msgspec.json.encode(record) + b"\n")


def private_folder(folder: Path) -> None:
    """A folder, with its parents, that only its owner may enter if it is made here."""
    if not folder.exists():
        folder.mkdir(parents=True, mode=0o700)
