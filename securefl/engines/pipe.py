"""A local socket between two processes of one machine and one user: whole messages of raw bytes, and never a pickle.

Who may open the folder that a socket lies in may speak to it, nobody else.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from threading import Lock
from typing import Final

from securefl.engines.letters import LONGEST
from securefl.errors import BadInput

_LONGEST_NAME: Final = 100  # bytes of a socket's path; the system's limit is 107
_STUCK: Final = 30  # seconds, whole ones, in which whoever is sent to has to take something


class Lost(Exception):
    """The other end is gone, silent or not there."""


class Pipe:
    """One end of a connection. All that it does raises ``Lost`` once the other end is gone, or this one is closed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = Lock()
        self._open = True
        self._using = 0
        with _as_socket(connection) as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _STUCK, 0))

    def send(self, data: bytes) -> None:
        """Also raises ``Lost``, for good, where the other end takes nothing for long: it hangs."""
        try:
            with self._used():
                self._connection.send_bytes(data)
        except Lost:
            self.close()  # half of a message may be on its way
            raise

    def waiting(self, seconds: float | None) -> bool:
        """Whether a message, or the end, comes within so many seconds; None: however long it takes."""
        with self._used():
            return self._connection.poll(seconds)

    def receive(self, seconds: float | None = None) -> bytes:
        """The next message; ``Lost`` also where none came within ``seconds``."""
        with self._used():
            if not self._connection.poll(seconds):
                raise Lost("silent")
            return self._connection.recv_bytes(LONGEST)

    def close(self) -> None:
        """Also wakes who sends or receives, whatever the other end does; what was sent still arrives there."""
        with self._lock:
            if self._open:
                self._open = False
                with _as_socket(self._connection) as end:
                    end.shutdown(socket.SHUT_RDWR)
            self._let_go()

    @contextmanager
    def _used(self) -> Iterator[None]:
        with self._lock:
            if not self._open:
                raise Lost("closed")
            self._using += 1
        try:
            yield
        except (OSError, EOFError) as error:
            raise Lost(str(error)) from error
        finally:
            with self._lock:
                self._using -= 1
                self._let_go()

    def _let_go(self) -> None:
        """Of the descriptor, once nobody uses it: its number may be another connection's right after."""
        if not self._open and not self._using:
            self._connection.close()


@contextmanager
def _as_socket(connection: Connection) -> Iterator[socket.socket]:
    """The same connection as a socket, for what only sockets do. Its errors are nobody's: the next use has them."""
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
        yield end


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
