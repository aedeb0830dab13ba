from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from protocols.errors import SessionSpent
from securefl.errors import BadInput, NotARun, Refused
from securefl.store import Store


def test_values_outlive_the_process_that_wrote_them(tmp_path: Path) -> None:
    Store(tmp_path / "store").put({"identity": b"\x00secret"})
    assert Store(tmp_path / "store").get("identity") == b"\x00secret"
    assert Store(tmp_path / "store").get("other") is None


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    Store(tmp_path / "store")
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o600


@pytest.mark.parametrize("again", [(3, 2), (3, 1), (2, 9)])
def test_an_attempt_that_is_not_later_is_refused_even_after_a_restart(tmp_path: Path, again: tuple[int, int]) -> None:
    Store(tmp_path / "store").join_attempt("run", 3, 2)
    with pytest.raises(SessionSpent, match="not after round 3, attempt 2"):
        Store(tmp_path / "store").join_attempt("run", *again)


def test_later_attempts_and_other_runs_are_joined() -> None:
    store = Store()
    for run, round, attempt in (("a", 1, 1), ("a", 1, 2), ("a", 2, 1), ("b", 1, 1)):
        store.join_attempt(run, round, attempt)


def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to be looked at" * 100)
    before = text.read_bytes()
    with pytest.raises(NotARun, match="not a store of securefl"):
        Store(text)
    assert text.read_bytes() == before


def test_a_foreign_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    with pytest.raises(NotARun, match="not a store of securefl"):
        Store(path)
    with sqlite3.connect(path) as other:
        assert [name for (name,) in other.execute("SELECT name FROM sqlite_master")] == ["theirs"]


def test_what_another_process_changed_is_not_overwritten(tmp_path: Path) -> None:
    """Two clients on one store would each keep their own count of what they agreed to."""
    one, two = Store(tmp_path / "store"), Store(tmp_path / "store")
    one.put({"record": b"1", "model": b"a"}, expected={"record": None})
    two.put({"record": b"2"}, expected={"record": b"1"})
    with pytest.raises(Refused, match="another process has changed 'record' meanwhile"):
        one.put({"record": b"3", "model": b"b"}, expected={"record": b"1"})
    assert (one.get("record"), one.get("model")) == (b"2", b"a")


def test_what_is_replaced_is_gone_from_the_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    old = bytes(range(256)) * 4
    store.put({"key": old})
    store.put({"key": b"new"})
    store.close()
    assert old[:64] not in (tmp_path / "store").read_bytes()


# ---- what can go wrong with a file later


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with something in it, which waits for nobody."""
    store = Store(tmp_path / "store")
    store.put({"model": b"old" * 2000, "identity": b"\x01" * 32})
    store.join_attempt("run", 1, 1)
    store._connection.execute("PRAGMA busy_timeout = 0")
    return store


def calls(store: Store) -> list[Callable[[], object]]:
    return [
        lambda: store.get("model"),
        lambda: store.joined("run"),
        lambda: store.put({"model": b"new"}),
        lambda: store.join_attempt("run", 1, 2),
    ]


def test_a_store_that_another_process_holds_says_so_and_loses_nothing(store: Store, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "store", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for call in calls(store):
            with pytest.raises(BadInput, match=r"another process holds .*store .*: run one at a time"):
                call()
    assert store.get("model") == b"old" * 2000
    store.join_attempt("run", 1, 2)


@pytest.mark.parametrize(
    ("limit", "why"),
    [("max_page_count = 1", "database or disk is full"), ("query_only = ON", "attempt to write a readonly database")],
)
def test_a_full_disk_and_one_that_is_read_only_say_so_and_lose_nothing(store: Store, limit: str, why: str) -> None:
    store._connection.execute(f"PRAGMA {limit}")
    with pytest.raises(BadInput, match=f"{why}.*nothing in it was changed.* has space and may be written"):
        store.put({"small": b"1", "model": b"new" * 20_000})
    assert (store.get("model"), store.get("small")) == (b"old" * 2000, None)
    store._connection.execute("PRAGMA query_only = OFF")
    store._connection.execute("PRAGMA max_page_count = 1000")
    store.put({"model": b"new"})
    assert store.get("model") == b"new"


def test_damaged_pages_and_tables_are_damage(store: Store, tmp_path: Path) -> None:
    store.close()
    path = tmp_path / "store"
    whole = path.read_bytes()
    pages = len(whole) // 4096
    path.write_bytes(whole[:4096] + b"\xff" * 4096 * (pages - 1))
    for call in calls(Store(path)):
        with pytest.raises(NotARun, match=r"is damaged .*: restore it from a backup"):
            call()
    path.write_bytes(whole)
    with closing(sqlite3.connect(path)) as other:
        other.execute("ALTER TABLE value RENAME COLUMN content TO other")
    with pytest.raises(NotARun, match=r"is damaged \(no such column: content\): restore it from a backup"):
        Store(path).get("model")


@pytest.mark.parametrize("content", [5, "text", 2.5, b"\x01\x02"])
def test_a_value_that_is_not_as_it_was_written_is_damage(store: Store, content: object) -> None:
    store._connection.execute("UPDATE value SET content = ?", (content,))
    with pytest.raises(NotARun, match=r"is damaged \('identity' is not as it was written\)"):
        store.get("identity", length=32)


def test_attempts_that_are_no_numbers_are_damage(store: Store) -> None:
    store._connection.execute("UPDATE joined SET attempt = 'many'")
    with pytest.raises(NotARun, match="is damaged"):
        store.join_attempt("run", 1, 2)


def test_what_cannot_be_a_store_at_all_is_said_to_be_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "store", tmp_path / ("x" * 300)):
        with pytest.raises(BadInput, match="cannot be used"):
            Store(path)


def test_a_closed_store_is_the_callers_mistake(store: Store) -> None:
    store.close()
    with pytest.raises(sqlite3.ProgrammingError):
        store.get("model")
