"""What doctor finds on this machine and on others."""

from __future__ import annotations

from pathlib import Path

import pytest

from securefl import doctor


def test_this_machine_is_described_in_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "fed_heart_disease").mkdir()
    monkeypatch.setenv("SECUREFL_DATA", str(tmp_path))
    health = doctor.examine()
    assert health.data[str(tmp_path)] == ("fed_heart_disease",)
    assert (health.ckks["standard"].security_bits, health.ckks["compact"].security_bits) == (256, 256)
    assert all(text for _, text in doctor.lines(health))


def test_a_data_folder_that_is_not_there_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECUREFL_DATA", str(tmp_path / "none"))
    assert any("correct or unset it" in problem for problem in doctor.examine().problems)


def test_without_data_it_says_what_happens_then(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SECUREFL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "SECUREFL_DATA is not set" in dict(doctor.lines(doctor.examine()))["data"]


def test_masks_have_a_speed() -> None:
    assert doctor.aes_speed() > 0


def test_a_package_that_is_missing_has_no_version() -> None:
    assert doctor.installed("no-such-package-here") is None
