"""One process at a time in a run's folder."""

from __future__ import annotations

import errno
import os
import sys
import weakref
from pathlib import Path
from typing import Final

from securefl.errors import BadInput
from securefl.run_folder import LOCK, explained, require_name

if sys.platform != "win32":
    import fcntl

_NO_LOCKS: Final = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class Lock:
    """A folder that no other process may run in, as long as this lives; a process that dies lets go of it."""

    def __init__(self, descriptor: int) -> None:
        weakref.finalize(self, os.close, descriptor)


# By device and inode of the locked file. Two locks of one process would shut each other out, so it has one and shares
# it: a run that was interrupted is opened again while what is left of it is still in memory.
_held: Final[weakref.WeakValueDictionary[tuple[int, int], Lock]] = weakref.WeakValueDictionary()


def lock(folder: Path, name: str = LOCK) -> Lock:
    """Keep all other processes from running in this folder, for as long as what is returned is kept.

    ``name``: of the file that is locked, where a folder has room for one process of each of several kinds.

    Raises ``BadInput`` where another process runs in it. Who only reads needs no lock. Nothing is locked on Windows,
    which has no ``flock``, nor on file systems that have no locks: it is then on the person not to start two.
    """
    with explained(folder / name):
        require_name(folder)
        descriptor = os.open(folder / name, os.O_CREAT | os.O_RDWR, 0o600)
    status = os.fstat(descriptor)
    key = status.st_dev, status.st_ino
    if (shared := _held.get(key)) is not None:
        os.close(descriptor)
        return shared
    try:
        _take(descriptor, folder)
        _refuse_deleted(key, folder, name)
    except BaseException:
        os.close(descriptor)
        raise
    held = _held[key] = Lock(descriptor)
    return held


def _refuse_deleted(key: tuple[int, int], folder: Path, name: str = LOCK) -> None:
    """Whoever had the lock before may have deleted it, and then it keeps nobody out."""
    with explained(folder / name):
        now = os.stat(folder / name)
    if (now.st_dev, now.st_ino) != key:
        raise BadInput(f"another process has just deleted {folder}: try again")


def _take(descriptor: int, folder: Path) -> None:
    """Lock an open file and write this process's number into it."""
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        number = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
        raise BadInput(
            f"another process is running in {folder} (pid {number}): wait until it ends, or end it, then go on"
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
