from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from securefl.errors import LedgerError
from securefl.privacy.ledger import read
from tests.securefl.privacy.ledgers import BUDGET, IDENTITY, OWNER, charge, charged, edit, opened, refused_unchanged

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a closed ledger of hospital-1 with three charges."""
    return charged(tmp_path / "ledger.sqlite")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entry SET content = 'x' WHERE sequence = 2",
        "DELETE FROM entry WHERE sequence = 3",
        "INSERT OR REPLACE INTO entry VALUES (3, 'x', 'y')",
        "INSERT INTO entry VALUES (5, 'x', 'y')",
        "UPDATE header SET content = x'7b7d'",
        "DELETE FROM header",
        "INSERT INTO header SELECT * FROM header",
    ],
)
def test_the_database_itself_refuses_everything_but_appending(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        with pytest.raises(sqlite3.IntegrityError, match=r"append-only|only grows|has one header"):
            connection.execute(statement)
        connection.rollback()
    assert len(read(path).entries) == 3


@pytest.mark.parametrize(
    "statement",
    [
        """UPDATE entry SET content = CAST(replace(content, '"steps":3', '"steps":1') AS BLOB) WHERE sequence = 2""",
        """UPDATE entry SET content = CAST(replace(content, '"simulated":false', '"simulated":true') AS BLOB)""",
        "UPDATE entry SET content = CAST(content AS TEXT) WHERE sequence = 2",
        "UPDATE entry SET content = CAST(content || ' ' AS BLOB) WHERE sequence = 3",
        "UPDATE entry SET content = x'00ff' WHERE sequence = 1",
        "UPDATE entry SET signature = zeroblob(64) WHERE sequence = 3",
        "UPDATE entry SET signature = x'00' WHERE sequence = 1",
        "UPDATE entry SET signature = (SELECT signature FROM entry WHERE sequence = 1) WHERE sequence = 2",
        "UPDATE entry SET sequence = 9 WHERE sequence = 3",
        "DELETE FROM entry WHERE sequence = 1",
        "DELETE FROM entry WHERE sequence = 2",
        "INSERT INTO entry SELECT 4, content, signature FROM entry WHERE sequence = 3",
        "UPDATE header SET content = CAST(replace(content, 'diagnoses', 'x-rays') AS BLOB)",
        "UPDATE header SET content = CAST(replace(content, 'add-or-remove-one', 'zero-out') AS BLOB)",
        "UPDATE header SET content = 'x'",
        "UPDATE header SET content = x'ff'",
        "UPDATE header SET signature = zeroblob(64)",
        "DELETE FROM header",
        "INSERT INTO header SELECT * FROM header",
        "CREATE TABLE extra (x)",
        "CREATE TRIGGER forget AFTER INSERT ON entry BEGIN SELECT 1; END",
    ],
)
def test_tampering_is_noticed_and_nothing_is_changed(path: Path, statement: str) -> None:
    edit(path, statement)
    assert re.search(r"was altered: .* restore the ledger from a backup", refused_unchanged(path))
    with pytest.raises(LedgerError, match="was altered"):
        read(path)


def test_a_ledger_whose_triggers_are_gone_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER entry_delete")
        connection.commit()
    assert "the triggers that protect them are not as securefl made them" in refused_unchanged(path)


def flip(path: Path, position: int) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        (old,) = file.read(1)
        file.seek(position)
        file.write(bytes([old ^ 0x41]))


@pytest.mark.parametrize(
    "region",
    [
        b"SQLite format 3",
        b"sFLl",
        b"CREATE TABLE header",
        b"CREATE TABLE entry",
        b"CREATE TRIGGER entry_delete",
        b'"client":"hospital-1"',
        b'"public_key"',
        b'"created"',
        b'"sequence":1',
        b'"sequence":3',
        b'"noise_multiplier":4.0',
        b'"epsilon":3.0',
        b'"fingerprint"',
        b'"simulated":false',
        b'"time":',
    ],
)
def test_a_flipped_byte_in_any_kind_of_place_is_noticed(path: Path, region: bytes) -> None:
    flip(path, path.read_bytes().index(region) + len(region) - 1)
    refused_unchanged(path)


def test_a_flipped_byte_in_any_signature_is_noticed(path: Path) -> None:
    chain = read(path)
    for signature in (chain.signature, *(entry.signature for entry in chain.entries)):
        copy = path.with_name("copy")
        shutil.copy(path, copy)
        flip(copy, path.read_bytes().index(signature) + 20)
        assert "was altered" in refused_unchanged(copy)


def test_a_flipped_byte_anywhere_is_noticed_or_changes_nothing_that_is_read(path: Path) -> None:
    """Every 61st byte: page headers, cell pointers and free space are hit too. Free space may be flipped unnoticed."""
    whole, copy, noticed = read(path), path.with_name("copy"), 0
    positions = range(0, path.stat().st_size, 61)
    for position in positions:
        shutil.copy(path, copy)
        flip(copy, position)
        try:
            assert read(copy) == whole
        except LedgerError:
            noticed += 1
    assert 10 < noticed < len(positions)


def test_a_truncated_ledger_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) - 4096, 4096, 100, 1):
        path.write_bytes(whole[:length])
        refused_unchanged(path)


def test_an_entry_of_a_kind_that_a_newer_securefl_writes_is_refused_as_that(path: Path) -> None:
    """It is signed by the owner, so nobody altered it; what it spent, this securefl cannot tell."""
    from securefl.privacy.ledger import chain as rules

    before = read(path)
    content = before.entries[-1].row[1].replace(b'"sequence":3', b'"sequence":4').replace(b'"dpsgd"', b'"laplace"')
    link = rules._link(before.head.digest, content)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO entry VALUES (4, ?, ?)", (content, rules._signature(IDENTITY, link)))
        connection.commit()
    said = refused_unchanged(path)
    assert "entry 4 is signed, but this securefl cannot read it" in said
    assert "laplace" in said and "install the securefl that wrote it" in said


def test_a_file_that_is_not_sqlite_is_refused_untouched(path: Path) -> None:
    path.write_text("hospital-1 spent epsilon 1.2\n" * 40)
    assert "is not a ledger, or is damaged" in refused_unchanged(path)


def test_an_empty_file_is_refused_untouched(path: Path) -> None:
    path.write_bytes(b"")
    assert "is empty, which no ledger is" in refused_unchanged(path)


def test_a_database_of_another_program_is_refused_untouched(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE patients (name TEXT)")
        connection.commit()
    assert "is a database of another program: choose another file name" in refused_unchanged(path)


@pytest.mark.parametrize(
    ("version", "said"), [(1, "older format 1, .* keep it, take what it spent off"), (3, "newer format 3, .* reads 2")]
)
def test_another_format_is_refused_untouched(path: Path, version: int, said: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    assert re.search(said, refused_unchanged(path))


def test_a_damaged_ledger_is_refused_untouched(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[150:4096] = b"\x55" * (4096 - 150)
    path.write_bytes(damaged)
    assert "restore" in refused_unchanged(path)


def test_a_folder_that_does_not_exist_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="No such file or directory"):
        opened(tmp_path / "missing" / "ledger.sqlite")


def test_a_folder_in_the_ledgers_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be used"):
        opened(tmp_path)


def test_reading_needs_a_ledger_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger at"):
        read(tmp_path / "none.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_is_read_while_it_is_open_and_without_leave_to_write(path: Path) -> None:
    with closing(opened(path)) as ledger:
        path.chmod(0o400)
        assert read(path).entries == ledger.entries()
        path.chmod(0o600)
        charge(ledger, 4)
        assert read(path).head == ledger.head()


INTERRUPTED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")  # so that pages are written before the commit
connection.execute("BEGIN IMMEDIATE")
connection.execute("CREATE TABLE filler (content BLOB)")
for _ in range(200):
    connection.execute("INSERT INTO filler VALUES (zeroblob(4000))")
os.kill(os.getpid(), 9)
"""


def test_a_ledger_whose_writer_was_killed_says_so_to_a_reader_and_is_set_right_by_its_owner(path: Path) -> None:
    before, whole = read(path), path.stat().st_size
    subprocess.run([sys.executable, "-c", INTERRUPTED, str(path)], check=False)
    assert path.stat().st_size > whole and path.with_name(path.name + "-journal").exists()
    with pytest.raises(LedgerError, match="let its owner open it once"):
        read(path)
    with closing(opened(path)) as ledger:
        assert (ledger.entries(), ledger.budget, ledger.owner) == (before.entries, BUDGET, OWNER)
    assert read(path) == before
