"""nvflare's command line, driven from wherever a person happens to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from securefl.engines.nvflare import certificates
from securefl.errors import BadInput

pytest.importorskip("nvflare")


@pytest.mark.attack("a module called nvflare in the folder that a command is run in")
def test_what_lies_in_the_present_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "nvflare"
    planted.mkdir()
    (planted / "__init__.py").write_text("open('ran', 'w')")
    (planted / "cli.py").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput):
        certificates._nvflare("cert", "nothing")
    assert not (tmp_path / "ran").exists()


def test_a_call_that_does_not_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "_SECONDS", 0.01)
    with pytest.raises(BadInput, match=r"did not end within 0\.01 s"):
        certificates._nvflare("cert", "init")
