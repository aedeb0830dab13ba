"""A run that needs data must not pass by skipping: the suite's own configuration, run on a small suite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import os
import pytest

@pytest.mark.needs_data
def test_marked(data_folder):
    assert data_folder.is_dir()

@pytest.mark.skipif(not os.environ.get("SECUREFL_DATA"), reason="SECUREFL_DATA is not set")
def test_skipped_by_itself():
    pass

@pytest.mark.skip(reason="another reason")
def test_skipped_for_another_reason():
    pass
"""


def outcome(folder: Path, **variables: str) -> tuple[int, str]:
    """pytest's exit code and last line for ``SUITE`` under our conftest."""
    shutil.copy(Path(__file__).with_name("conftest.py"), folder / "conftest.py")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = needs_data\n")
    (folder / "test_suite.py").write_text(SUITE)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SECUREFL_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, cwd=folder, env=kept | variables, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("variables", "code", "said"),
    [
        ({}, 0, "3 skipped"),
        ({"SECUREFL_REQUIRE_DATA": "1"}, 1, "1 skipped, 2 errors"),
        ({"SECUREFL_REQUIRE_DATA": "1", "SECUREFL_DATA": "."}, 0, "2 passed, 1 skipped"),
    ],
)
def test_a_skip_for_want_of_data_fails_only_where_data_is_required(
    tmp_path: Path, variables: dict[str, str], code: int, said: str
) -> None:
    assert (result := outcome(tmp_path, **variables))[0] == code, result
    assert said in result[1]
