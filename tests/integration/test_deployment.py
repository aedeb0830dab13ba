"""A real deployment: a server and four sites as processes, from provisioned kits, over mutual TLS on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import chaos
from benchmarks.deployed import Deployment, deployed
from securefl import report, verification
from securefl.errors import Refused
from securefl.run import Run
from securefl.settings import Nvflare

pytest.importorskip("nvflare", reason="the extra [nvflare] is not installed")


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("four"), chaos.NAMES) as deployment:
        yield deployment


def engine(deployment: Deployment) -> Nvflare:
    return Nvflare(str(deployment.server.path), patience=60.0)


def test_sites_reach_the_same_model_as_one_process(four: Deployment, tmp_path: Path) -> None:
    for protection in ("secagg", "ckks"):  # in one test, on one deployment
        require_same_model(four, protection, tmp_path / protection)


def require_same_model(four: Deployment, protection: str, folder: Path) -> None:
    run = Run.create(chaos.job(protection), folder, engine=engine(four))
    try:
        assert [len(record.contributors) for record in run.rounds()] == [4, 4, 4]
        summary = run.finish()
    finally:
        run.close()
    apart = np.abs(chaos.model(four, run) - chaos.undisturbed(run.job, run.history)).max()
    assert apart <= chaos.SAME
    assert not [path for path in run.folder.rglob("*") if path.name.endswith(".sqlite") and "server" not in path.parts]
    assert set(summary.epsilon_by_client) == set(chaos.NAMES) and summary.budget_epsilon is None
    verdict = verification.verified(run.folder)
    assert verdict.problems == () and set(verdict.keys) == set(chaos.NAMES)
    written = report.read(run.folder)
    assert len(written.signatures) == 4
    assert "timing" in {hazard.kind for hazard in written.hazards if not isinstance(hazard, str)}


@pytest.mark.slow
def test_a_job_outside_an_owners_policy_is_refused_before_any_round(four: Deployment, tmp_path: Path) -> None:
    """``plain`` has no masks, and the owners here want them for two colluders."""
    for site in four.sites.values():
        text = site.file.read_text(encoding="utf-8")
        site.file.write_text(f"{text}\n[policy]\nprotections = ['secagg', 'ckks']\n", encoding="utf-8")
    try:
        for name in four.names:
            four.strike("client", chaos.signal.SIGKILL, name)  # it starts again with its owner's new word
        four.wait(lambda: all(four.serves(name) for name in four.names))
        with pytest.raises(Refused, match="take no part in this plan"):
            Run.create(chaos.job("plain"), tmp_path / "run", engine=engine(four))
        assert not (tmp_path / "run").exists()
        for site in four.sites.values():
            assert "protections" in (site.path / "owner.log").read_text(encoding="utf-8")
    finally:
        for site in four.sites.values():
            text = site.file.read_text(encoding="utf-8")
            site.file.write_text(text.partition("\n[policy]")[0], encoding="utf-8")


@pytest.mark.slow
def test_a_site_with_another_roster_is_left_out_and_the_round_goes_on(four: Deployment, tmp_path: Path) -> None:
    """Its sessions are others: nothing that it signs is taken for the run's."""
    site = four.sites[chaos.VICTIM]
    pinned = site.roster_file.read_bytes()
    other = site.roster()
    other.members[chaos.SECOND] = other.members[chaos.SECOND].__class__("Mallory", "ab" * 32, "cd" * 32)
    site.roster_file.write_bytes(other.encoded())
    four.strike("client", chaos.signal.SIGKILL, chaos.VICTIM)
    try:
        four.wait(lambda: four.serves(chaos.VICTIM))
        run = Run.create(chaos.job("secagg", rounds=1), tmp_path / "run", engine=engine(four))
        try:
            (record,) = list(run.rounds())
        finally:
            run.close()
        assert set(record.contributors) == set(chaos.NAMES) - {chaos.VICTIM}
        assert chaos.VICTIM in record.dropped
    finally:
        site.roster_file.write_bytes(pinned)
        four.strike("client", chaos.signal.SIGKILL, chaos.VICTIM)
