"""The folder of a run: what its files are called, and how they are written: a crash costs at most the last line."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import msgspec
from msgspec import Struct

from securefl.errors import BadInput, NotARun

JOB: Final = "job.toml"
PLAN: Final = "plan.json"
HISTORY: Final = "history.jsonl"
TRANSCRIPT: Final = "transcript.jsonl"
SUMMARY: Final = "summary.json"
STATEMENTS: Final = "statements.json"
MODEL: Final = "model.safetensors"
STORE: Final = "store.sqlite"
LOCK: Final = "lock"
AUDIT: Final = "audit.json"
ENGINE: Final = "engine.json"

T = TypeVar("T")


def lines(path: Path, record: type[T]) -> list[T]:
    """One value a line; no file, no values. Raises ``NotARun`` for what cannot be read."""
    try:
        # A crash can cut the last line short.
        whole = path.read_bytes().rpartition(b"\n")[0]
        return [msgspec.json.decode(line, type=record) for line in whole.splitlines() if line]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise NotARun(f"{path} cannot be read ({error.strerror}): check what it is and who may read it") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotARun(f"{path} is damaged ({error}): restore it from a backup") from error


def mend(path: Path) -> None:
    """Cut off a last line that a crash left without its end, so that nothing is written behind it."""
    with explained(path):
        if path.exists():
            with path.open("r+b") as file:
                file.truncate(file.read().rfind(b"\n") + 1)


def append(file: BinaryIO, record: Struct) -> None:
    """One value as one line; on disk when the system chooses. Raises ``BadInput`` on a full disk."""
    with explained(Path(file.name)):
        line = msgspec.json.encode(record) + b"\n"
        if file.write(line) < len(line):  # a file without a buffer takes what fits
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def append_durably(file: BinaryIO, record: Struct) -> None:
    """The same, on disk when this returns; with a new file's first line, so is its name."""
    path = Path(file.name)
    with explained(path):
        new = file.tell() == 0
        append(file, record)
        file.flush()
        os.fsync(file.fileno())
        if new:
            _sync_folder(path.absolute().parent)


def write(path: Path, data: bytes) -> None:
    """A whole file, in the place of one that may be there; a crash leaves the one or the other, and never a part."""
    partial = path.with_name(f"{path.name}.partial")
    with explained(path):
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.absolute().parent)


def private_folder(folder: Path) -> None:
    """A folder, with its parents, that only its owner may enter if it is made here. ``BadInput`` if it cannot be."""
    with explained(folder):
        require_name(folder)
        if not folder.exists():
            folder.mkdir(parents=True, mode=0o700)
        if not folder.is_dir():
            raise BadInput(f"{folder} is not a folder: choose another name")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's errors into ``BadInput``s that say what to do."""
    try:
        yield
    except OSError as error:
        raise BadInput(
            f"{path} cannot be written ({error.strerror}): check its name, who may write it, and that there is space"
        ) from error


def require_name(folder: Path) -> None:
    """Raise ``BadInput`` for a folder that job files and reports, which are in UTF-8, could not name."""
    try:
        named = "\0" not in str(folder.absolute()) and str(folder.absolute()).encode()
    except UnicodeEncodeError:
        named = False
    if not named:
        raise BadInput(f"{str(folder)!r} is not a name in UTF-8: choose another")


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # which opens no folder as a file
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
