"""Local sockets: whole messages, and errors of one type when the other end is gone."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from securefl.engines import pipe
from securefl.engines.pipe import Door, Lost, connect


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    door = Door(tmp_path / "a.sock")
    yield door
    door.close()


def test_messages_arrive_whole_both_ways(door: Door, tmp_path: Path) -> None:
    here = connect(tmp_path / "a.sock")
    there = door.accept()
    for size in (0, 1, 5_000_000):
        sender = threading.Thread(target=here.send, args=(bytes(size),))
        sender.start()
        assert there.receive(5) == bytes(size)
        sender.join()
    there.send(b"back")
    assert here.receive(5) == b"back"
    here.close()
    there.close()


def test_who_is_silent_or_gone_is_lost(door: Door, tmp_path: Path) -> None:
    here = connect(tmp_path / "a.sock")
    there = door.accept()
    with pytest.raises(Lost, match="silent"):
        here.receive(0.01)
    there.close()
    with pytest.raises(Lost):
        here.receive(5)
    here.close()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(Lost, match="nobody listens"):
        connect(tmp_path / "none.sock")


def test_only_its_owner_may_speak_to_it_and_it_goes_with_the_door(door: Door, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    door.close()
    assert not path.exists()


def test_closing_wakes_who_waits(door: Door) -> None:
    woken = []

    def wait() -> None:
        try:
            door.accept()
        except Lost as error:
            woken.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    door.close()
    waiting.join(5)
    assert len(woken) == 1


def test_a_folder_deeper_than_a_sockets_name_may_be(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-rather-long-folder-name"] * 8)
    deep.mkdir(parents=True)
    door = Door(deep / "a.sock")
    here = connect(deep / "a.sock")
    here.send(b"found")
    assert door.accept().receive(5) == b"found"
    here.close()
    door.close()
    assert not (deep / "a.sock").exists()


def test_a_file_that_a_crash_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.sock").write_text("left over")
    door = Door(tmp_path / "a.sock")
    connect(tmp_path / "a.sock").close()
    door.close()


@pytest.mark.parametrize("side", ["sends", "receives"])
def test_closing_wakes_who_sends_or_receives(door: Door, tmp_path: Path, side: str) -> None:
    """The other end may hang for ever, and whoever closes must be able to end."""
    here = connect(tmp_path / "a.sock")
    there = door.accept()
    woken = []

    def use() -> None:
        try:
            here.send(bytes(50_000_000)) if side == "sends" else here.receive()
        except Lost as error:
            woken.append(str(error))

    using = threading.Thread(target=use, daemon=True)
    using.start()
    using.join(0.3)
    here.close()
    using.join(5)
    assert len(woken) == 1
    with pytest.raises(Lost):
        here.send(b"after")
    here.close()
    there.close()


def test_what_was_sent_before_closing_still_arrives(door: Door, tmp_path: Path) -> None:
    here = connect(tmp_path / "a.sock")
    there = door.accept()
    here.send(b"last")
    here.close()
    assert there.receive(5) == b"last"
    there.close()


def test_who_takes_nothing_for_long_is_lost(door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "_STUCK", 1)
    here = connect(tmp_path / "a.sock")
    there = door.accept()
    with pytest.raises(Lost):
        here.send(bytes(50_000_000))
    with pytest.raises(Lost):  # half of a message is on its way
        here.send(b"after")
    there.close()
