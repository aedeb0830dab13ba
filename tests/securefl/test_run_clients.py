"""What a client keeps for longer than a run is still there when the run goes on."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from securefl.errors import LedgerError, RunExists
from securefl.run import Run
from tests.securefl.verification import toy


def test_a_run_that_has_begun_is_not_resumed_without_a_ledger_or_its_identity(tmp_path: Path) -> None:
    """A new ledger would forget what was spent, and a new identity could not open the old one."""
    folder = tmp_path / "run"
    ledgers = folder / "ledgers"
    Run.create(toy.job(), folder)
    for path in ledgers.iterdir():
        path.unlink()
    assert Run.open(folder).history == []  # nothing was spent yet
    list(islice(Run.open(folder).rounds(), 1))
    for name in ("ada.sqlite", "ada.keep.sqlite"):
        moved = (ledgers / name).rename(tmp_path / "moved")
        with pytest.raises(LedgerError, match=r"the ledger of ada is not at .*though the run has begun: restore both"):
            Run.open(folder)
        assert not (ledgers / name).exists()
        moved.rename(ledgers / name)
    assert len(Run.open(folder).history) == 1


_LOADER = """
import os
from pathlib import Path
from tests.securefl.verification import toy

def load(client):
    "As slow as a loader can be: another process claims the folder meanwhile."
    folder = Path(os.environ["CLAIMED"])
    folder.mkdir(exist_ok=True)
    (folder / "job.toml").write_text("theirs")
    return toy.load(client)
"""


def test_of_two_that_create_one_folder_at_once_the_second_leaves_the_first_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    (tmp_path / "claiming_loader.py").write_text(_LOADER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CLAIMED", str(folder))
    with pytest.raises(RunExists, match="was just taken by another run"):
        Run.create(toy.job(data={"loader": "claiming_loader:load"}), folder)
    assert (folder / "job.toml").read_text() == "theirs"
    assert not (folder / "clients").exists()
