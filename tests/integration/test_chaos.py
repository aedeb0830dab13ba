"""Whatever dies, nothing is lost: faults on a real deployment, each with its outcome stated before it is played."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import chaos, namespaces
from benchmarks.chaos import Case
from benchmarks.deployed import Deployment, deployed
from benchmarks.namespaces import Network

pytest.importorskip("nvflare", reason="the extra [nvflare] is not installed")

QUICK = [("secagg", case) for case in chaos.at(2)] + [("ckks", case) for case in chaos.at(5)][:1]
MATRIX = [(kind, case) for kind in ("secagg", "ckks") for case in chaos.cases(kind)]


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("four"), chaos.NAMES) as deployment:
        yield deployment


def named(value: object) -> str | None:
    return str(value).partition(":")[0] if isinstance(value, Case) else None


def played(deployment: Deployment, protection: str, case: Case, folder: Path) -> None:
    found = chaos.play(deployment, case, chaos.job(protection), folder)
    assert found.problems == [], str(case)


@pytest.mark.slow
def test_one_of_each_kind_comes_out_as_stated(four: Deployment, tmp_path: Path) -> None:
    """In one test, on one deployment: it has to be there as a whole."""
    for number, (protection, case) in enumerate(QUICK):
        played(four, protection, case, tmp_path / str(number))
    chaos.resumed(four, tmp_path / "resumed")


@pytest.mark.chaos
@pytest.mark.parametrize(("protection", "case"), MATRIX, ids=named)
def test_every_fault_at_every_exchange(four: Deployment, tmp_path: Path, protection: str, case: Case) -> None:
    played(four, protection, case, tmp_path / "run")


@pytest.fixture(scope="module")
def cabled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    if not namespaces.possible():
        pytest.skip("network namespaces need root and iproute2")
    with deployed(tmp_path_factory.mktemp("cabled"), chaos.NAMES, network=Network(chaos.NAMES)) as deployment:
        yield deployment


@pytest.mark.chaos
@pytest.mark.parametrize("exchange", range(5))
def test_a_site_is_cut_off_at_every_exchange(cabled: Deployment, tmp_path: Path, exchange: int) -> None:
    played(cabled, "secagg", chaos.cut(exchange), tmp_path / "run")


@pytest.mark.chaos
@pytest.mark.parametrize("protection", ["secagg", "ckks"])
@pytest.mark.parametrize("exchange", range(6))
def test_the_coordinator_dies_at_every_exchange(
    four: Deployment, tmp_path: Path, protection: str, exchange: int
) -> None:
    if (protection, exchange) != ("secagg", 5):  # which has no such exchange
        chaos.resumed(four, tmp_path / "run", exchange, protection)
