"""The line to an nvflare server: one at a time, and one that ends whatever its job does."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from securefl.engines.correspondence import Correspondence, Deadlines
from securefl.engines.nvflare import line as lines
from securefl.engines.nvflare.frames import SOCKET, Ready, encoded
from securefl.engines.nvflare.jobs import Jobs
from securefl.engines.nvflare.line import Line
from securefl.engines.pipe import connect
from securefl.errors import BadInput

HOLDS = """
import sys
from pathlib import Path
from securefl.run_lock import lock
held = lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_coordinator_at_a_server_is_refused_and_may_come_once_the_first_is_gone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        with pytest.raises(BadInput, match="another process is running in"):
            Line(tmp_path, Jobs(tmp_path, "nobody"), ["ada"])
        first.kill()
    line = Line(tmp_path, Jobs(tmp_path, "nobody"), ["ada"])
    line.close()
    second = subprocess.run(command, input="", capture_output=True, text=True, check=True)
    assert second.stdout == "held\n"


class Submitting(Jobs):
    """A server that takes a job; who runs it is up to the test."""

    def submit(self) -> str:
        return "job"

    def ended(self, job: str) -> bool:
        return False

    def connected(self) -> frozenset[str]:
        return frozenset({"ada"})


def test_a_job_that_hangs_keeps_nobody_from_ending(tmp_path: Path) -> None:
    """It took the connection, and takes nothing more: as a job that was stopped does."""
    line = Line(tmp_path, Submitting(tmp_path, "nobody"), ["ada"])
    job = connect(tmp_path / SOCKET)
    while not line.ready(0.1):  # what is said before the job is known to be submitted is not believed
        job = connect(tmp_path / SOCKET)
        job.send(encoded(Ready("job", ("ada",))))
    letters = Correspondence(line.carry, Deadlines(0.5, 0.5))
    before = set(threading.enumerate())
    assert list(letters.exchange({"ada": bytes(20_000_000)})) == []
    line.close()
    until = time.monotonic() + 5.0
    while sending := {one for one in set(threading.enumerate()) - before if one.name.startswith("letters")}:
        assert time.monotonic() < until, sending
        time.sleep(0.05)
    job.close()


def test_a_job_is_replaced_in_the_middle_of_an_exchange_for_a_site_that_leaves_letters_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when what runs beside a site's worker was killed, and the worker goes with it some seconds later."""
    monkeypatch.setattr(lines, "_MUTE", 0.2)
    monkeypatch.setattr(lines, "_AGAIN", 0.1)
    said: list[str] = []
    line = Line(tmp_path, Submitting(tmp_path, "nobody"), ["ada"], said.append)
    job = connect(tmp_path / SOCKET)
    while not line.ready(0.1):
        job = connect(tmp_path / SOCKET)
        job.send(encoded(Ready("job", ("ada",))))
    assert line.carry("ada", b"letter", 0.2) is None
    until = time.monotonic() + 10.0
    while "ada may be back" not in said:
        assert time.monotonic() < until, said
        time.sleep(0.05)
    line.close()
    job.close()
