"""A ledger's SQLite file: made whole, opened only if it is ours and undamaged, appended to durably.

What its rows mean is ``chain``'s business: here they are bytes.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from securefl.errors import LedgerError
from securefl.privacy.ledger.chain import Chain, Entry, HeaderRow, Row, altered, verified

# "sFLl" in the header's application id says that a file is ours; the user version is the format of what is in it.
_APPLICATION = int.from_bytes(b"sFLl")
FORMAT: Literal[2] = 2
# A charge computes an epsilon while it holds the lock: other processes wait for it rather than fail.
_PATIENCE_SECONDS = 60.0
_MEMORY = ":memory:"

# The insert trigger also stops INSERT OR REPLACE, which deletes without firing a delete trigger.
_SCHEMA = {
    "header": "CREATE TABLE header (content BLOB NOT NULL, signature BLOB NOT NULL)",
    "entry": "CREATE TABLE entry (sequence INTEGER PRIMARY KEY, content BLOB NOT NULL, signature BLOB NOT NULL)",
    "entry_in_order": "CREATE TRIGGER entry_in_order BEFORE INSERT ON entry "
    "WHEN NEW.sequence IS NOT (SELECT COALESCE(MAX(sequence), 0) + 1 FROM entry) "
    "BEGIN SELECT RAISE(ABORT, 'a ledger only grows at its end'); END",
    "header_once": "CREATE TRIGGER header_once BEFORE INSERT ON header "
    "WHEN EXISTS (SELECT 1 FROM header) "
    "BEGIN SELECT RAISE(ABORT, 'a ledger has one header'); END",
} | {
    f"{table}_{action.lower()}": f"CREATE TRIGGER {table}_{action.lower()} BEFORE {action} ON {table} "
    "BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END"
    for table in ("header", "entry")
    for action in ("UPDATE", "DELETE")
}


class LedgerFile:
    """One open ledger file, made with ``new`` in it where there is none; ``":memory:"`` keeps nothing.

    One thread at a time; other processes may have it open too. Raises ``LedgerError``, and changes nothing, on a file
    that is foreign, of another format or damaged.
    """

    def __init__(self, path: str, new: Chain) -> None:
        self.path = path
        self._process = os.getpid()
        with explained(path):
            if path != _MEMORY and not os.path.lexists(path):
                _create(path, new)
            self._connection = _memory(new) if path == _MEMORY else _opened(path, "rw")

    def chain(self) -> Chain:
        """All that is in the file, verified."""
        return _chain(self._connection, self.path)

    def rows(self, first: int) -> list[Row]:
        """The entries from sequence ``first`` on, as they are stored."""
        self._require_own_process()
        with explained(self.path):
            return _rows(self._connection, first)

    def append(self, entry: Entry) -> None:
        self._connection.execute("INSERT INTO entry VALUES (?, ?, ?)", entry.row)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction that no other process can interleave with: what is read in it still holds when it commits.

        After it, what was appended is on disk.
        """
        self._require_own_process()
        with explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def close(self) -> None:
        self._connection.close()

    def _require_own_process(self) -> None:
        # SQLite's locks and page cache do not survive a fork: two processes would write over each other.
        if os.getpid() != self._process:
            raise LedgerError(f"{self.path} was opened before this process was forked off: open it in this process")


def read(path: str | Path) -> Chain:
    """All that is in a ledger's file, verified; the file is only read, and may be in use.

    Raises ``LedgerError`` on a file that is not an unaltered ledger of this format.
    """
    path = str(path)
    if not os.path.lexists(path):
        raise LedgerError(f"there is no ledger at {path}: check the path")
    with explained(path), closing(_opened(path, "ro")) as connection:
        return _chain(connection, path)


def is_ledger(path: Path) -> bool:
    """Whether this is a ledger of the present format, going by its first bytes; an older one has no fingerprints."""
    with explained(str(path)):
        return path.is_file() and path.stat().st_size > 0 and _kind(path) == (_APPLICATION, FORMAT)


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn SQLite's and the system's errors into ``LedgerError``s that say what to do."""
    try:
        yield
    except sqlite3.ProgrammingError:  # a closed ledger was used: the caller's bug, nothing about the file
        raise
    except sqlite3.OperationalError as error:
        raise LedgerError(_unusable(path, error)) from error
    except sqlite3.DatabaseError as error:
        raise LedgerError(
            f"{path} is not a ledger, or is damaged ({error}): choose another file name, or restore it from a backup"
        ) from error
    except OSError as error:
        reason = f"{path} cannot be created ({error.strerror}): choose a local folder that you can write"
        raise LedgerError(reason) from error


def _unusable(path: str, error: sqlite3.OperationalError) -> str:
    if error.sqlite_errorname == "SQLITE_READONLY_ROLLBACK":
        return (
            f"{path} was being written when a process was killed, and must be set right before it can be read: let its "
            f"owner open it once, or read a copy of it and its -journal file in a folder that you can write"
        )
    if error.sqlite_errorname == "SQLITE_READONLY_DBMOVED":  # what is written to such a file, no later run would see
        return f"{path} was replaced or removed while it was open: train nothing until you know why, then open it again"
    return (
        f"{path} cannot be used ({error}): check that the folder exists, has space and may be written, "
        f"and that no other program holds the file"
    )


def _chain(connection: sqlite3.Connection, path: str) -> Chain:
    """Header and entries in one read transaction, so that no other process writes between them."""
    with explained(path):
        connection.execute("BEGIN")
        try:
            headers = connection.execute("SELECT content, signature FROM header").fetchall()
            rows = _rows(connection, 1)
        finally:
            connection.execute("ROLLBACK")
    if len(headers) != 1:
        raise altered(path, "it does not have exactly one header")
    header: HeaderRow = headers[0]
    return verified(header, rows, path)


def _rows(connection: sqlite3.Connection, first: int) -> list[Row]:
    found = "SELECT sequence, content, signature FROM entry WHERE sequence >= ? ORDER BY sequence"
    return connection.execute(found, (first,)).fetchall()


def _opened(path: str, mode: str) -> sqlite3.Connection:
    """An existing ledger's connection, after a look whether it is ours and whole."""
    _refuse_foreign(path)
    connection = _connected(Path(path).absolute().as_uri() + f"?mode={mode}")
    try:
        _refuse_damaged(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _connected(uri: str) -> sqlite3.Connection:
    # Transactions are ours to begin (isolation_level), and Ledger's lock keeps threads apart.
    connection = sqlite3.connect(
        uri, uri=uri != _MEMORY, timeout=_PATIENCE_SECONDS, isolation_level=None, check_same_thread=False
    )
    # EXTRA is FULL plus a sync of the folder after the journal is removed: without it a power cut can undo a commit.
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA synchronous = EXTRA")
    return connection


def _memory(new: Chain) -> sqlite3.Connection:
    connection = _connected(_MEMORY)
    _fill(connection, new)
    return connection


def _create(path: str, new: Chain) -> None:
    """Make a whole ledger beside ``path`` and link it there, so that ``path`` never holds a part of one.

    A link fails where a name is taken: of two processes that create at once, one wins and both open the winner's.
    """
    with tempfile.TemporaryDirectory(prefix=".ledger-", dir=Path(path).absolute().parent) as folder:
        made = Path(folder) / "ledger"
        with closing(_connected(made.absolute().as_uri())) as connection:
            _fill(connection, new)
        try:
            os.link(made, path)
        except FileExistsError:
            return
    _sync_folder(Path(path).absolute().parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fill(connection: sqlite3.Connection, new: Chain) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA.values():
        connection.execute(statement)
    connection.execute("INSERT INTO header VALUES (?, ?)", (msgspec.json.encode(new.header), new.signature))
    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")


def _refuse_foreign(path: str) -> None:
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise LedgerError(f"{path} is empty, which no ledger is: restore it from a backup, or choose another file name")
    application, version = _kind(Path(path))
    if application != _APPLICATION:
        raise LedgerError(f"{path} is a database of another program: choose another file name for the ledger")
    if version != FORMAT:
        age, remedy = ("newer", "install the securefl that wrote it")
        if version < FORMAT:
            age, remedy = ("older", "keep it, take what it spent off your budget, and start a ledger under a new name")
        raise LedgerError(f"{path} is a ledger of {age} format {version}, this securefl reads {FORMAT}: {remedy}")


def _kind(path: Path) -> tuple[int, int]:
    """Application and format in the file's header, read immutably: a foreign file's journal is not even rolled back."""
    with closing(sqlite3.connect(path.absolute().as_uri() + "?mode=ro&immutable=1", uri=True)) as connection:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    return application, version


def _refuse_damaged(connection: sqlite3.Connection, path: str) -> None:
    # Of a damaged page map, a later append could make use: entries would be written over.
    found = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != ("ok",):
        raise altered(path, f"SQLite finds its pages damaged ({found[0]})")
    schema = dict(connection.execute("SELECT name, sql FROM sqlite_master").fetchall())
    if schema != _SCHEMA:
        raise altered(path, "its tables or the triggers that protect them are not as securefl made them")
