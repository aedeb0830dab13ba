"""Finished runs that several files of tests read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.securefl.verification import toy


@pytest.fixture(scope="session")
def secagg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.finished(toy.job(), tmp_path_factory.mktemp("runs") / "secagg")


@pytest.fixture(scope="session")
def ckks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.finished(toy.job("ckks"), tmp_path_factory.mktemp("runs") / "ckks")


@pytest.fixture
def copy(secagg: Path, tmp_path: Path) -> Path:
    """A run that a test may change."""
    return Path(shutil.copytree(secagg, tmp_path / "copy"))
