"""What one party keeps between processes: named values in one SQLite file that only its owner may read.

Used by clients (identity, CKKS key, model, the attempts they joined) and by the server (round, attempt, model).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from securefl.errors import NotARun, Refused

_APPLICATION = int.from_bytes(b"sFLs")
_FORMAT = 1


class Store:
    """Values by name, written together or not at all. ``":memory:"`` keeps nothing.

    Raises ``NotARun`` on a foreign file.
    """

    def __init__(self, path: Path | str = ":memory:") -> None:
        if path != ":memory:":
            # Created before SQLite does it, so that secrets never lie in a file that others can read.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._connection = sqlite3.connect(str(path), isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            raise NotARun(f"{path} is not a store of securefl ({error}): name the folder of a run") from error

    def _prepare(self) -> None:
        (application,) = self._connection.execute("PRAGMA application_id").fetchone()
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and (application, version) != (_APPLICATION, _FORMAT):
            raise sqlite3.DatabaseError(f"application {application:#x}, format {version}")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA secure_delete = ON")  # a key that was replaced is gone
        self._connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        self._connection.execute(f"PRAGMA user_version = {_FORMAT}")
        self._connection.execute("CREATE TABLE IF NOT EXISTS value (name TEXT PRIMARY KEY, content BLOB NOT NULL)")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS joined (run TEXT PRIMARY KEY, round INTEGER NOT NULL, attempt INTEGER NOT NULL)"
        )

    def get(self, name: str) -> bytes | None:
        row = self._connection.execute("SELECT content FROM value WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def put(self, values: Mapping[str, bytes], expected: Mapping[str, bytes | None] | None = None) -> None:
        """Write all of ``values`` in one transaction, on disk when it returns.

        Raises ``Refused``, and writes nothing, unless what is stored is still as ``expected``: another process that has
        this file open changed it.
        """
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for name, value in (expected or {}).items():
                if self.get(name) != value:
                    raise Refused(
                        f"another process has changed {name!r} meanwhile: run one client on a store at a time"
                    )
            self._connection.executemany("INSERT OR REPLACE INTO value VALUES (?, ?)", list(values.items()))

    def join_attempt(self, run: str, round: int, attempt: int) -> None:
        """Remember that this attempt was joined. Raises ``Refused`` unless it is later than all before in the run.

        Durable before anything is signed: else a restarted client could be led into a session a second time.
        """
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            row = self._connection.execute("SELECT round, attempt FROM joined WHERE run = ?", (run,)).fetchone()
            if row is not None and (round, attempt) <= (row[0], row[1]):
                raise Refused(
                    f"round {round}, attempt {attempt} is not after round {row[0]}, attempt {row[1]}, joined before"
                )
            self._connection.execute("INSERT OR REPLACE INTO joined VALUES (?, ?, ?)", (run, round, attempt))

    def joined(self, run: str) -> bool:
        """Whether any attempt of this run was joined."""
        return self._connection.execute("SELECT 1 FROM joined WHERE run = ?", (run,)).fetchone() is not None

    def close(self) -> None:
        self._connection.close()
