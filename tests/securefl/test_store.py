from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from securefl.errors import NotARun, Refused
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
    with pytest.raises(Refused, match="not after round 3, attempt 2"):
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
