"""One project for all tests that only look at it, and copies for those that change it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.securefl.deployment.deployed import Deployed, joined


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Not to be changed. Making it takes some 15 s."""
    pytest.importorskip("nvflare")
    return joined(tmp_path_factory.mktemp("deployment") / "project", 8002)


@pytest.fixture
def own_project(project: Deployed, tmp_path: Path) -> Deployed:
    """A copy, to be changed."""
    return project.copied(tmp_path / "project")
