"""``securefl audit`` and what a run makes of its result, as a person and a script meet them."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from benchmarks.mutants import MUTANTS
from securefl import cli, report
from securefl.audit import result
from securefl.audit.result import Audit
from securefl.cli import measuring
from securefl.job.file import Table
from securefl.report.document import Audited
from securefl.run_folder import AUDIT
from tests.securefl.verification import toy

LOUD: Table = {"noise_multiplier": 1.0, "epsilon": 50.0}
HALVED = next(mutant for mutant in MUTANTS if mutant.name == "half the noise")


class Place(NamedTuple):
    """A job, its audit, a run with it in the report; ``said``: the last line of each of the two commands."""

    job: Path
    audit: Path
    run: Path
    said: dict[str, Any]


def written(path: Path, privacy: Table = LOUD) -> Path:
    path.write_text(toy.job(privacy=privacy).to_toml(), encoding="utf-8")
    return path


def carried_out(arguments: Sequence[object]) -> Any:
    """What a command that succeeds says to scripts."""
    with redirect_stdout(io.StringIO()) as out:
        assert cli.main([*map(str, arguments), "--json"]) == 0
    return json.loads(out.getvalue().splitlines()[-1])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("audited")
    job, audit, run = written(folder / "job.toml"), folder / "found" / "audit.json", folder / "run"
    found = carried_out(["audit", job, "--canaries", 60, "--client", "bob", "--out", audit])
    made = carried_out(["run", job, "--audit", audit, "--out", run])
    return Place(job, audit, run, {"audit": found, "run": made})


@pytest.fixture
def copy(place: Place, tmp_path: Path) -> Path:
    """A run that a test may change."""
    return Path(shutil.copytree(place.run, tmp_path / "copy"))


@pytest.fixture(scope="module")
def refuted(place: Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[Audit, str, int]:
    """An audit of half the noise, what the command said, and its exit code."""
    folder = tmp_path_factory.mktemp("refuted")
    with pytest.MonkeyPatch.context() as patch, HALVED.planted(), redirect_stdout(io.StringIO()) as out:
        patch.chdir(folder)
        code = cli.main(["audit", str(place.job), "--canaries", "60"])
    (file,) = (folder / "runs").iterdir()
    assert file.name.startswith("audit-toy-") and file.suffix == ".json"
    return result.read(file), out.getvalue(), code


# ---- the command


def test_an_audit_is_written_and_said_in_one_line(place: Place) -> None:
    found, said = result.read(place.audit), place.said["audit"]
    assert (found.client, found.scores.canaries, found.scores.rounds) == ("bob", 60, 2)
    assert said["audit"] == str(place.audit)
    assert said["claim"] == found.asked.claim > said["epsilon_at_least"] == found.found.headline.epsilon
    assert (said["headline"], said["confidence"], said["refuted"]) == ("Gaussian mean shift", 0.99, [])
    assert said["bounds"] == {bound.method: bound.epsilon for bound in found.found.bounds}
    assert said["checks"] == {check.name: check.p for check in found.found.checks}
    assert found.reassessed() == found.found
    assert place.audit.parent.stat().st_mode & 0o077 == 0  # scores tell of an owner's noise


def test_an_audit_charges_nothing(place: Place) -> None:
    claim = result.read(place.audit).asked.claim
    for epsilon in place.said["run"]["epsilon_by_client"].values():
        assert epsilon == pytest.approx(claim)  # of one run, and no more


def test_a_refuted_claim_is_exit_code_4_and_a_line_each(refuted: tuple[Audit, str, int]) -> None:
    found, said, code = refuted
    assert code == 4 and found.found.violated
    assert "FAILED    noise scale: p = " in said
    assert "REFUTED   noise scale: not as declared, there is as much noise as declared" in said
    assert "verdict" not in said and "written   " in said


def test_a_person_reads_claim_bounds_tests_and_verdict(place: Place) -> None:
    found = result.read(place.audit)
    lines = list(measuring.lines(found))
    assert lines[0].startswith(f"claim     epsilon {found.asked.claim:.3f} at delta 1e-05, by the ledger of bob")
    assert [line for line in lines if line.startswith("headline  Gaussian mean shift: epsilon at least ")]
    assert [line for line in lines if line.startswith("estimate  one-shot estimator: epsilon about ")]
    assert sum(line.startswith("test ") for line in lines) == len(found.found.checks)
    assert lines[-1].startswith("verdict   nothing contradicts the claim; epsilon is between the headline (")


def test_a_test_that_fails_by_chance_or_not_is_no_good_verdict(place: Place) -> None:
    found = result.read(place.audit)
    checks = (replace(found.found.checks[0], p=1e-3), *found.found.checks[1:])
    *_, verdict = measuring.lines(replace(found, found=replace(found.found, checks=checks)))
    assert verdict.startswith("verdict   not refuted, and not as expected")
    below = replace(found.asked, claim=found.found.headline.epsilon * 0.99)
    *_, verdict = measuring.lines(replace(found, asked=below))
    assert verdict.startswith("verdict   not refuted, and not as expected")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--client", "eve"], "no client 'eve'"),
        (["--headline", "largest"], "bounds nothing"),
        (["--canaries", "1"], ""),
    ],
)
def test_what_cannot_be_audited_is_exit_code_2(
    place: Place, tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "none.json"
    assert cli.main(["audit", str(place.job), "--out", str(out), *arguments]) == 2
    assert said in capsys.readouterr().err and not out.exists()


# ---- the report of a run


def test_a_run_has_its_audit_in_report_and_page(place: Place) -> None:
    found, audit = report.read(place.run), result.read(place.audit)
    assert isinstance(found.audit, Audited)
    assert (found.audit.client, found.audit.canaries, found.audit.refuted) == ("bob", 60, ())
    assert (found.audit.at_least, found.audit.claim) == (audit.found.headline.epsilon, audit.asked.claim)
    assert (place.run / AUDIT).read_bytes() == place.audit.read_bytes()
    page = (place.run / report.HTML).read_text(encoding="utf-8")
    assert "What an audit measured" in page and "by Gaussian mean shift, which was named before" in page
    assert found.status.word == "private"


def test_a_run_with_its_audit_is_verified(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(place.run)]) == 0
    assert "MISMATCH" not in capsys.readouterr().out


def lowered(audit: Audit) -> Audit:
    headline = replace(audit.found.headline, epsilon=0.01)
    return replace(audit, found=replace(audit.found, headline=headline))


def scores_changed(audit: Audit) -> Audit:
    values = bytes(len(audit.scores.values))
    return replace(audit, scores=replace(audit.scores, values=values))


def claim_raised(audit: Audit) -> Audit:
    return replace(audit, asked=replace(audit.asked, claim=1e3))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lowered, "MISMATCH  audit: headline is 0.01 and comes to "),
        (scores_changed, "MISMATCH  audit: Gaussian mean shift is "),
        (claim_raised, "MISMATCH  audit: the claim is 1000, and what was charged comes to "),
    ],
)
def test_an_audit_that_was_tampered_with_is_a_mismatch(
    copy: Path, change: Callable[[Audit], Audit], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / AUDIT).write_bytes(result.encoded(change(result.read(copy / AUDIT))))
    assert cli.main(["verify", str(copy)]) == 4
    said = capsys.readouterr().out
    assert named in said
    assert "MISMATCH  report: audit." in said  # which has the hash of what was there


def test_an_audit_that_was_removed_or_damaged_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / AUDIT).write_bytes((copy / AUDIT).read_bytes()[:-1])
    assert cli.main(["verify", str(copy)]) == 2
    assert "is no audit, or damaged" in capsys.readouterr().err
    (copy / AUDIT).unlink()
    assert cli.main(["verify", str(copy)]) == 4
    assert "MISMATCH  report: audit is " in capsys.readouterr().out


def test_a_refuted_audit_makes_a_report_violated(copy: Path, refuted: tuple[Audit, str, int]) -> None:
    (copy / AUDIT).write_bytes(result.encoded(refuted[0]))
    status = report.assembled(copy, "unknown").status
    assert status.word == "violated"
    assert any("the audit says: noise scale: not as declared" in reason for reason in status.reasons)


def test_an_audit_of_another_mechanism_is_refused_before_there_is_a_run(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, folder = written(tmp_path / "other.toml", LOUD | {"noise_multiplier": 2.0}), tmp_path / "run"
    assert cli.main(["run", str(other), "--audit", str(place.audit), "--out", str(folder)]) == 2
    assert "audits another plan than this job's" in capsys.readouterr().err
    assert cli.main(["run", str(other), "--audit", str(tmp_path / "none.json"), "--out", str(folder)]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert not folder.exists()
