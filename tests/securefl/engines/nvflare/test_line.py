"""The line to an nvflare server: one at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from securefl.engines.nvflare.jobs import Jobs
from securefl.engines.nvflare.line import Line
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
