from __future__ import annotations

import stat
from pathlib import Path

import pytest
from msgspec import Struct

from securefl import run_folder
from securefl.errors import BadInput, NotARun


class Line(Struct, frozen=True):
    number: int
    name: str = ""


def test_what_was_appended_is_in_the_file_before_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with path.open("ab") as file:
        for number in (1, 2):
            run_folder.append_durably(file, Line(number))
            assert run_folder.lines(path, Line)[-1] == Line(number)


def test_a_line_that_a_crash_cut_short_is_left_out_and_then_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_bytes(b'{"number":1}\n{"num')
    assert run_folder.lines(path, Line) == [Line(1)]
    run_folder.mend(path)
    with path.open("ab") as file:
        run_folder.append(file, Line(2))
    assert run_folder.lines(path, Line) == [Line(1), Line(2)]


@pytest.mark.parametrize(
    "content", [b'{"number":1,"name":"\xff"}', b'{"other":' + b"[" * 100_000, b"1" * 5000, b"\0", b"{}", b"null"]
)
def test_lines_that_are_no_records_are_damage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "history").write_bytes(content + b"\n")
    with pytest.raises(NotARun, match=r"is damaged .*: restore it from a backup"):
        run_folder.lines(tmp_path / "history", Line)


def test_a_folder_in_the_place_of_a_file_is_damage(tmp_path: Path) -> None:
    (tmp_path / "history").mkdir()
    with pytest.raises(NotARun, match="cannot be read"):
        run_folder.lines(tmp_path / "history", Line)
    for change in (run_folder.mend, lambda path: run_folder.write(path, b"new")):
        with pytest.raises(BadInput, match="cannot be written"):
            change(tmp_path / "history")


def test_a_full_disk_is_bad_input() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with full.open("ab", buffering=0) as file, pytest.raises(BadInput, match="that there is space"):
        run_folder.append(file, Line(1))


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    for content in (b"one", b"two"):
        run_folder.write(path, content)
        assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["plan.json"]


def test_a_folder_that_is_made_is_its_owners_alone(tmp_path: Path) -> None:
    run_folder.private_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["file", "file/run", "x" * 300, "nul\0", "\udcff"])
def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(BadInput):
        run_folder.private_folder(tmp_path / name)
