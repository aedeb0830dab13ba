"""Two processes in one run's folder would hand out session ids twice."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from securefl.errors import BadInput
from securefl.run_lock import _refuse_deleted, lock

if sys.platform == "win32":
    pytest.skip("Windows has no flock", allow_module_level=True)

_HOLD = """
import sys
from pathlib import Path
from securefl.run_lock import _refuse_deleted, lock
held = lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that runs in the folder, until it is killed."""
    command = [sys.executable, "-c", _HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    with another(tmp_path) as first:
        with pytest.raises(BadInput, match=rf"another process is running in .* \(pid {first.pid}\)"):
            lock(tmp_path)
        assert (tmp_path / "lock").read_text() == f"{first.pid}\n"  # who only reads may do so
    assert lock(tmp_path)


def test_a_process_shares_its_own_lock_and_keeps_it_as_long_as_anyone_needs_it(tmp_path: Path) -> None:
    """A run that was interrupted is opened again while what is left of it is still in memory."""
    first = lock(tmp_path)
    second = lock(tmp_path)
    del first
    gc.collect()
    done = subprocess.run([sys.executable, "-c", _HOLD, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "another process is running" in done.stderr
    del second
    gc.collect()
    with another(tmp_path):
        pass


def test_a_lock_of_a_folder_that_was_removed_is_not_that_of_a_new_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    first = lock(folder)
    (folder / "lock").unlink()
    assert lock(folder) is not first


def test_a_lock_on_a_file_that_was_deleted_meanwhile_is_no_lock(tmp_path: Path) -> None:
    """Between opening it and locking it, whoever had it removed the folder, and somebody else made a new one."""
    (tmp_path / "lock").write_text("")
    before = os.stat(tmp_path / "lock")
    os.rename(tmp_path / "lock", tmp_path / "gone")
    (tmp_path / "lock").write_text("")
    now = os.stat(tmp_path / "lock")
    _refuse_deleted((now.st_dev, now.st_ino), tmp_path)
    with pytest.raises(BadInput, match="another process has just deleted"):
        _refuse_deleted((before.st_dev, before.st_ino), tmp_path)


@pytest.mark.parametrize("name", ["none", "file"])
def test_a_folder_that_is_none_is_bad_input(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(BadInput, match="cannot be written"):
        lock(tmp_path / name)
