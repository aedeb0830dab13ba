"""What one party keeps between processes: named values in one SQLite file that only its owner may read.

Used by clients (identity, CKKS key, model, the attempts they joined) and by the server (round, attempt, model).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from protocols.errors import SessionSpent
from securefl.errors import BadInput, NotARun, Refused, SecureFLError

_APPLICATION = int.from_bytes(b"sFLs")
_FORMAT = 1
# Another process writes for milliseconds, unless there are two on one store.
_PATIENCE_SECONDS = 5.0
_TAKEN: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR}  # pages or tables that are not as they were made


class Store:
    """Values by name, written together or not at all. ``":memory:"`` keeps nothing.

    All that it does can raise ``NotARun``, on a file that is foreign or damaged, and ``BadInput``, where another
    process, the disk or a permission is in the way: then nothing is lost, and the same can be done again.
    """

    def __init__(self, path: Path | str = ":memory:") -> None:
        self._path = path
        with self._explained():
            if path != ":memory:":
                # Created before SQLite does it, so that secrets never lie in a file that others can read.
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._connection = sqlite3.connect(
                str(path), timeout=_PATIENCE_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.text_factory = bytes
            self._prepare()

    def _prepare(self) -> None:
        (application,) = self._connection.execute("PRAGMA application_id").fetchone()
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and (application, version) != (_APPLICATION, _FORMAT):
            raise _foreign(self._path, f"application {application:#x}, format {version}")
        # EXTRA is FULL and a sync of the folder after the journal is removed: else a power cut can undo a commit.
        self._connection.execute("PRAGMA synchronous = EXTRA")
        self._connection.execute("PRAGMA secure_delete = ON")  # a key that was replaced is gone
        self._connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        self._connection.execute(f"PRAGMA user_version = {_FORMAT}")
        self._connection.execute("CREATE TABLE IF NOT EXISTS value (name TEXT PRIMARY KEY, content BLOB NOT NULL)")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS joined (run TEXT PRIMARY KEY, round INTEGER NOT NULL, attempt INTEGER NOT NULL)"
        )

    def get(self, name: str, length: int | None = None) -> bytes | None:
        """The value of that name; None where there is none. Raises ``NotARun`` unless it is of ``length`` bytes."""
        with self._explained():
            row = self._connection.execute("SELECT content FROM value WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        (value,) = row
        if not isinstance(value, bytes) or (length is not None and len(value) != length):
            raise _damaged(self._path, f"{name!r} is not as it was written")
        return value

    def put(self, values: Mapping[str, bytes], expected: Mapping[str, bytes | None] | None = None) -> None:
        """Write all of ``values`` in one transaction, on disk when it returns.

        Raises ``Refused``, and writes nothing, unless what is stored is still as ``expected``: another process that has
        this file open changed it.
        """
        with self._writing():
            for name, value in (expected or {}).items():
                if self.get(name) != value:
                    raise Refused(
                        f"another process has changed {name!r} meanwhile: run one client on a store at a time"
                    )
            self._connection.executemany("INSERT OR REPLACE INTO value VALUES (?, ?)", list(values.items()))

    def join_attempt(self, run: str, round: int, attempt: int) -> None:
        """Remember that this attempt was joined.

        Raises ``SessionSpent`` unless it is later than all before in the run: a client that restarted has left it.

        Durable before anything is signed: else a restarted client could be led into a session a second time.
        """
        with self._writing():
            row = self._connection.execute("SELECT round, attempt FROM joined WHERE run = ?", (run,)).fetchone()
            if row is not None and not all(isinstance(number, int) for number in row):
                raise _damaged(self._path, f"what was joined of run {run!r} is no number")
            if row is not None and (round, attempt) <= (row[0], row[1]):
                raise SessionSpent(
                    f"round {round}, attempt {attempt} is not after round {row[0]}, attempt {row[1]}, joined before"
                )
            self._connection.execute("INSERT OR REPLACE INTO joined VALUES (?, ?, ?)", (run, round, attempt))

    def joined(self, run: str) -> bool:
        """Whether any attempt of this run was joined."""
        with self._explained():
            return self._connection.execute("SELECT 1 FROM joined WHERE run = ?", (run,)).fetchone() is not None

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, undone by any error."""
        with self._explained(), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            yield

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's and the system's errors into ours."""
        try:
            yield
        except sqlite3.ProgrammingError:  # a closed store was used: the caller's bug, nothing about the file
            raise
        except sqlite3.DatabaseError as error:
            raise _typed(self._path, error) from error
        except OSError as error:
            raise _unusable(self._path, error.strerror or str(error)) from error


def _typed(path: Path | str, error: sqlite3.DatabaseError) -> SecureFLError:
    kind = error.sqlite_errorcode & 0xFF  # the rest tells apart what is to be done about in the same way
    if kind == sqlite3.SQLITE_NOTADB:
        return _foreign(path, str(error))
    if kind in _DAMAGED:
        return _damaged(path, str(error))
    if kind in _TAKEN:
        return BadInput(f"another process holds {path} ({error}): run one at a time; end the other, then go on")
    return _unusable(path, str(error))


def _foreign(path: Path | str, why: str) -> NotARun:
    return NotARun(f"{path} is not a store of securefl ({why}): name the folder of a run")


def _damaged(path: Path | str, why: str) -> NotARun:
    return NotARun(f"{path} is damaged ({why}): restore it from a backup")


def _unusable(path: Path | str, why: str) -> BadInput:
    return BadInput(
        f"{path} cannot be used ({why}): nothing in it was changed; check that its folder exists, has space and may be "
        f"written, then go on"
    )
