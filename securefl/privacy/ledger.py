"""What a data owner has released, in one SQLite file per client and data set; kept and enforced by the owner.

Entries are appended only and chained by SHA-256. That shows an edit, not a rollback: whoever can write the file can put
an older copy back or rewrite it whole, and only a head that others have witnessed tells.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from securefl.errors import BadInput, BudgetExceeded, LedgerError
from securefl.privacy.accountant import affordable_rounds, epsilon
from securefl.privacy.mechanism import DPSGD, Budget

# "sFLl" in the header's application id says that a file is ours; the user version is the format of what is in it.
_APPLICATION = int.from_bytes(b"sFLl")
_FORMAT = 1
_GENESIS = b"securefl ledger 1 genesis\0"
_LINK = b"securefl ledger 1 entry\0"
# A charge computes an epsilon while it holds the lock: other processes wait for it rather than fail.
_PATIENCE_SECONDS = 60.0

# The insert trigger also stops INSERT OR REPLACE, which deletes without firing a delete trigger.
_SCHEMA = {
    "owner": "CREATE TABLE owner (client TEXT NOT NULL)",
    "entry": "CREATE TABLE entry (sequence INTEGER PRIMARY KEY, content BLOB NOT NULL, digest BLOB NOT NULL)",
    "entry_in_order": "CREATE TRIGGER entry_in_order BEFORE INSERT ON entry "
    "WHEN NEW.sequence IS NOT (SELECT COALESCE(MAX(sequence), 0) + 1 FROM entry) "
    "BEGIN SELECT RAISE(ABORT, 'a ledger only grows at its end'); END",
} | {
    f"{table}_{action.lower()}": f"CREATE TRIGGER {table}_{action.lower()} BEFORE {action} ON {table} "
    "BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END"
    for table in ("owner", "entry")
    for action in ("UPDATE", "DELETE")
}


class Content(Struct, frozen=True, forbid_unknown_fields=True):
    """What one charge says: ``sequence`` counts from 1, ``time`` is UTC (ISO 8601), ``budget`` was then in force."""

    sequence: int
    run: str
    round: int
    attempt: int
    mechanism: DPSGD
    budget: Budget | None
    time: str


class Entry(Content, frozen=True, forbid_unknown_fields=True):
    """One charge in its place in the chain: ``digest`` covers ``previous`` and the content; 32 bytes each."""

    previous: bytes
    digest: bytes


class Ledger:
    """All charges of one client against one data set, over rounds, runs and jobs.

    Opens ``path`` or creates it; ``":memory:"`` keeps nothing. ``budget`` may differ from an earlier one: the owner
    chooses, and each entry records it; None records charges and refuses none. Threads and processes may share a file.

    Guarantee: as long as every training is charged first, and the file is not rolled back, the epsilon of all that was
    released from this data set is at most ``epsilon()``, and at most the budget's. Noise, rate and steps of a charge
    must not be chosen from what earlier charges released; within a run they are fixed by its plan.
    Raises ``LedgerError``, and changes nothing, on a file that is not an unaltered ledger of this client and format.
    """

    def __init__(self, path: str | Path, client: str, budget: Budget | None) -> None:
        self.client = client
        self.budget = budget
        self._lock = threading.RLock()
        self._path = str(path)
        self._connection = _open(self._path, client)
        try:
            self.entries()
        except LedgerError:
            self.close()
            raise

    def charge(self, run: str, round: int, attempt: int, mechanism: DPSGD) -> Entry:
        """Record that one round is about to be released; on return it is on disk, and training may start.

        A crash after this leaves it charged. Each attempt is charged once: a retry is another attempt, paid again.
        Raises ``BudgetExceeded`` if it does not fit and ``LedgerError`` if it was charged before; neither charges.
        """
        if not isinstance(mechanism, DPSGD):
            raise BadInput(f"only DPSGD can be charged, not {type(mechanism).__name__}: it has no epsilon")
        with self._writing():
            entries = self.entries()
            self._refuse_second_charge(entries, run, round, attempt)
            self._refuse_above_budget([entry.mechanism for entry in entries], mechanism)
            time = datetime.now(UTC).isoformat(timespec="seconds")
            said = Content(len(entries) + 1, run, round, attempt, mechanism, self.budget, time)
            # Once there and back: what will be read later is what is chained now, to the byte (4 becomes 4.0).
            content = msgspec.json.decode(msgspec.json.encode(said), type=Content)
            entry = _chained(content, entries[-1].digest if entries else _genesis(self.client))
            row = (entry.sequence, msgspec.json.encode(content), entry.digest)
            self._connection.execute("INSERT INTO entry VALUES (?, ?, ?)", row)
        return entry

    def check(self, mechanism: DPSGD) -> None:
        """Raise ``BudgetExceeded`` if one more ``mechanism`` would not fit. Charges nothing; only ``charge`` binds."""
        self._refuse_above_budget([entry.mechanism for entry in self.entries()], mechanism)

    def epsilon(self, delta: float | None = None) -> float:
        """Epsilon of every charge so far, at ``delta`` or else at the budget's."""
        if delta is None:
            if self.budget is None:
                raise BadInput(f"{self.client}: an epsilon needs a delta: give one, or open the ledger with a budget")
            delta = self.budget.delta
        return epsilon([entry.mechanism for entry in self.entries()], delta)

    def entries(self) -> list[Entry]:
        """All charges, oldest first, after checking the whole chain. Raises ``LedgerError`` if it was altered."""
        with self._lock, _explained(self._path):
            rows = self._connection.execute("SELECT sequence, content, digest FROM entry ORDER BY sequence").fetchall()
        entries: list[Entry] = []
        previous = _genesis(self.client)
        for expected, (sequence, content, digest) in enumerate(rows, start=1):
            entry = _decoded(content, previous)
            if entry is None or not expected == sequence == entry.sequence or digest != entry.digest:
                raise _altered(self._path, f"entry {expected} does not follow from the one before it")
            entries.append(entry)
            previous = entry.digest
        return entries

    def head(self) -> bytes:
        """The last link of the chain, 32 bytes: who has seen it notices when this ledger is rolled back behind it."""
        entries = self.entries()
        return entries[-1].digest if entries else _genesis(self.client)

    def close(self) -> None:
        """Let go of the file. Every charge is on disk already."""
        self._connection.close()

    def _refuse_second_charge(self, entries: list[Entry], run: str, round: int, attempt: int) -> None:
        if any((entry.run, entry.round, entry.attempt) == (run, round, attempt) for entry in entries):
            raise LedgerError(
                f"{self.client}: round {round}, attempt {attempt} of run {run!r} was charged before: "
                f"a retry must be a new attempt, which is charged again"
            )

    def _refuse_above_budget(self, spent: list[DPSGD], mechanism: DPSGD) -> None:
        if self.budget is None:
            return
        after = epsilon([*spent, mechanism], self.budget.delta)
        if after > self.budget.epsilon:
            left = affordable_rounds(mechanism, self.budget, spent)
            raise BudgetExceeded(self.client, epsilon(spent, self.budget.delta), after, self.budget.epsilon, left)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction that no other process can interleave with: what is read in it still holds when it commits."""
        with self._lock, _explained(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")


def _genesis(client: str) -> bytes:
    return hashlib.sha256(_GENESIS + client.encode()).digest()


def _chained(content: Content, previous: bytes) -> Entry:
    digest = hashlib.sha256(_LINK + previous + msgspec.json.encode(content)).digest()
    return Entry(**msgspec.structs.asdict(content), previous=previous, digest=digest)


def _decoded(content: bytes, previous: bytes) -> Entry | None:
    """The entry that these bytes and the link before them make; None unless they are the one encoding of a charge."""
    try:
        decoded = msgspec.json.decode(content, type=Content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return _chained(decoded, previous) if msgspec.json.encode(decoded) == content else None


def _open(path: str, client: str) -> sqlite3.Connection:
    with _explained(path):
        if path == ":memory:":
            connection = _connected(path)
            _fill(connection, client)
            return connection
        if not os.path.lexists(path):
            _create(path, client)
        _refuse_foreign(path)
        connection = _connected(Path(path).absolute().as_uri() + "?mode=rw")
        try:
            _refuse_altered(connection, path, client)
        except BaseException:
            connection.close()
            raise
        return connection


def _connected(uri: str) -> sqlite3.Connection:
    # Transactions are ours to begin (isolation_level), and Ledger's lock keeps threads apart.
    connection = sqlite3.connect(
        uri, uri=uri != ":memory:", timeout=_PATIENCE_SECONDS, isolation_level=None, check_same_thread=False
    )
    # EXTRA is FULL plus a sync of the folder after the journal is removed: without it a power cut can undo a commit.
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA synchronous = EXTRA")
    return connection


def _create(path: str, client: str) -> None:
    """Make a whole ledger beside ``path`` and link it there, so that ``path`` never holds a part of one.

    A link fails where a name is taken: of two processes that create at once, one wins and both open the winner's.
    """
    with tempfile.TemporaryDirectory(prefix=".ledger-", dir=Path(path).absolute().parent) as folder:
        made = Path(folder) / "ledger"
        with closing(_connected(made.absolute().as_uri())) as connection:
            _fill(connection, client)
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


def _fill(connection: sqlite3.Connection, client: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA.values():
        connection.execute(statement)
    connection.execute("INSERT INTO owner VALUES (?)", (client,))
    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
    connection.execute(f"PRAGMA user_version = {_FORMAT}")
    connection.execute("COMMIT")


def _refuse_foreign(path: str) -> None:
    """Look at the header only, and immutably: a foreign database's own journal is not even rolled back."""
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise LedgerError(f"{path} is empty, which no ledger is: restore it from a backup, or choose another file name")
    with closing(sqlite3.connect(Path(path).absolute().as_uri() + "?mode=ro&immutable=1", uri=True)) as connection:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION:
        raise LedgerError(f"{path} is a database of another program: choose another file name for the ledger")
    if version != _FORMAT:
        age, remedy = ("newer", "install the securefl that wrote it")
        if version < _FORMAT:
            age, remedy = ("older", "keep it, take what it spent off your budget, and start a ledger under a new name")
        raise LedgerError(f"{path} is a ledger of {age} format {version}, this securefl reads {_FORMAT}: {remedy}")


def _refuse_altered(connection: sqlite3.Connection, path: str, client: str) -> None:
    schema = dict(connection.execute("SELECT name, sql FROM sqlite_master").fetchall())
    if schema != _SCHEMA:
        raise _altered(path, "its tables or the triggers that protect them are not as securefl made them")
    owners = [owner for (owner,) in connection.execute("SELECT client FROM owner")]
    if len(owners) != 1:
        raise _altered(path, "it does not have exactly one owner")
    if owners != [client]:
        raise LedgerError(f"{path} is the ledger of {owners[0]!r}, not of {client!r}: open it under its owner's name")


def _altered(path: str, how: str) -> LedgerError:
    return LedgerError(f"{path} was altered: {how}; train nothing on this data and restore the ledger from a backup")


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turn SQLite's and the system's errors into ``LedgerError``s that say what to do."""
    try:
        yield
    except sqlite3.ProgrammingError:  # a closed ledger was used: the caller's bug, nothing about the file
        raise
    except sqlite3.OperationalError as error:
        raise LedgerError(
            f"{path} cannot be used ({error}): check that the folder exists, has space and may be written, "
            f"and that no other program holds the file"
        ) from error
    except sqlite3.DatabaseError as error:
        raise LedgerError(
            f"{path} is not a ledger, or is damaged ({error}): choose another file name, or restore it from a backup"
        ) from error
    except OSError as error:
        reason = f"{path} cannot be created ({error.strerror}): choose a local folder that you can write"
        raise LedgerError(reason) from error
