"""A local socket between two processes of one machine and one user: whole messages of raw bytes, and never a pickle.

Who may open the folder that a socket lies in may speak to it, nobody else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Final

from securefl.engines.letters import LONGEST
from securefl.errors import BadInput

_LONGEST_NAME: Final = 100  # bytes of a socket's path; the system's limit is 107


class Lost(Exception):
    """The other end is gone, silent or not there."""


class Pipe:
    """One end of a connection. All that it does raises ``Lost`` once the other end is gone."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, data: bytes) -> None:
        try:
            self._connection.send_bytes(data)
        except OSError as error:
            raise Lost(str(error)) from error

    def waiting(self, seconds: float | None) -> bool:
        """Whether a message, or the end, comes within so many seconds; None: however long it takes."""
        try:
            return self._connection.poll(seconds)
        except OSError as error:
            raise Lost(str(error)) from error

    def receive(self, seconds: float | None = None) -> bytes:
        """The next message; ``Lost`` also where none came within ``seconds``."""
        if not self.waiting(seconds):
            raise Lost("silent")
        try:
            return self._connection.recv_bytes(LONGEST)
        except (OSError, EOFError) as error:
            raise Lost(str(error)) from error

    def close(self) -> None:
        self._connection.close()


class Door:
    """Where others connect. A file that was left there is replaced: whoever opens a door owns its folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open = True
        path.unlink(missing_ok=True)
        with _short(path) as name:
            try:
                self._listener = Listener(name, "AF_UNIX", backlog=64)
            except OSError as error:
                raise BadInput(
                    f"{path} cannot be opened as a socket ({error.strerror}): check the folder, and who may write it"
                ) from error
        path.chmod(0o600)

    def accept(self) -> Pipe:
        """The next to connect. Raises ``Lost`` once the door is closed."""
        try:
            pipe = Pipe(self._listener.accept())
        except OSError as error:
            raise Lost(str(error)) from error
        if not self._open:
            pipe.close()
            raise Lost("the door is closed")
        return pipe

    def close(self) -> None:
        """Also wakes who waits in ``accept``: the system would let it wait on."""
        self._open = False
        with suppress(Lost):
            connect(self._path).close()
        with suppress(OSError):  # the standard library removes the file by the name that it was given
            self._listener.close()
        self._path.unlink(missing_ok=True)


def connect(path: Path) -> Pipe:
    """Raises ``Lost`` where nobody listens."""
    try:
        with _short(path) as name:
            return Pipe(Client(name, "AF_UNIX"))
    except OSError as error:
        raise Lost(f"nobody listens at {path} ({error.strerror})") from error


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for a socket's path that the system takes, however deep its folder lies."""
    if len(os.fsencode(path)) <= _LONGEST_NAME:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
