from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

import pytest

from benchmarks import audit as bench
from benchmarks.__main__ import SUBJECTS
from benchmarks.audited import client_level, digits, small
from benchmarks.mutants import MUTANTS, Mutant, caught_by
from benchmarks.rows import Row
from securefl.audit.canary_audit import audit
from securefl.job import Job
from securefl.privacy import accountant
from tests.securefl.audit.bounds.synthetic import most_alarms

# What has to accuse each fault, whatever else does.
NAMED = {
    "half the noise": "noise scale",
    "a layer without noise": "noise everywhere",
    "clip doubled": "canary length",
    "no noise": "noise scale",
    "same noise in every step": "fresh noise",
    "noise shared by clients": "own noise",
    "accountant reset every round": "Gaussian mean shift",
    "shuffled while Poisson is claimed": "sampling",
    "half the noise, sampled": "sampled Gaussian",
    "one client's ledger not charged": "charges",
    "a third of the client-level noise": "noise scale",
    "client-level updates not clipped": "canary length",
}


def by_name(rows: Iterable[Row]) -> dict[str, Row]:
    return {row.name: row for row in rows}


def shorter(rate: float, noise: float = 1.0, rounds: int = 2) -> Job:
    return small(rate, noise, 2)


@pytest.fixture
def small_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "small", shorter)
    monkeypatch.setattr(bench, "digits", lambda noise, rate: shorter(rate, noise))


def test_it_is_a_subject_of_the_one_command() -> None:
    assert "audit" in SUBJECTS


def test_the_audited_claims_are_those_of_the_goals() -> None:
    for noise, rate, claim in ((4.0, 1.0, 9.61), (1.0, 0.1, 5.57)):
        job = digits(noise, rate)
        assert job.rounds == 60
        assert accountant.epsilon([job.mechanism] * 60, 1e-5) == pytest.approx(claim, abs=0.01)


@pytest.mark.usefixtures("small_jobs")
def test_tightness_is_the_headline_over_the_claim() -> None:
    rows = by_name(bench.tightness_rows(quick=True))
    for name, goal, headline in (
        ("tightness_q1", 0.80, "Gaussian_mean_shift"),
        ("tightness_q01", 0.35, "sampled_Gaussian"),
    ):
        row, claim = rows[name], rows[f"{name}_claim"].value
        assert (row.goal, row.met, row.unit) == (goal, row.value >= goal, "of the claim")
        assert row.value == pytest.approx(rows[f"{name}_{headline}"].value / claim)
        assert rows[f"{name}_one-run"].value < claim


@pytest.mark.usefixtures("small_jobs")
def test_faults_that_nothing_accuses_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    none = Mutant("nothing at all", "unsampled", nullcontext)
    uncharged = next(mutant for mutant in MUTANTS if mutant.name == "one client's ledger not charged")
    monkeypatch.setattr(bench, "MUTANTS", (none, uncharged))
    rows = by_name(bench.mutant_rows(quick=True))
    assert (rows["mutants_run"].value, rows["mutants_run"].goal, rows["mutants_run"].met) == (2, 8, False)
    assert (rows["mutants_missed"].value, rows["mutants_missed"].goal, rows["mutants_missed"].met) == (1, 0, False)
    assert len(MUTANTS) >= 8


@pytest.mark.usefixtures("small_jobs")
def test_false_alarms_are_counted_with_their_interval() -> None:
    rows = by_name(bench.false_alarm_rows(2, quick=True))
    assert (rows["audit_runs"].value, rows["audit_runs"].goal, rows["audit_runs"].met) == (2, 200, False)
    for name in ("false_alarm_rate", "false_alarm_rate_of_tests"):
        low, high = rows[f"{name}_interval_from"].value, rows[f"{name}_interval_to"].value
        assert rows[name].goal == 0.01 and rows[name].met == (low <= 0.01 <= high)
        assert low <= rows[name].value <= high


def test_a_rate_whose_interval_leaves_the_level_out_misses_the_goal() -> None:
    assert by_name(bench._rate_rows("rate", 2, 200, quick=True))["rate"].met
    assert not by_name(bench._rate_rows("rate", 12, 200, quick=True))["rate"].met


def test_every_fault_has_something_to_be_accused_by() -> None:
    assert set(NAMED) == {mutant.name for mutant in MUTANTS}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_planted_fault_is_accused_by_name(mutant: Mutant) -> None:
    assert NAMED[mutant.name] in bench.accused(mutant)


@pytest.mark.slow
def test_the_mechanism_as_it_is_is_accused_by_nothing() -> None:
    """Seeds are fixed: this repeats itself. Of 20 others some would be accused with probability 1/3, as levels say."""
    found = [bench.honest(seed) for seed in range(20)]
    assert [one.found.refuted for one in found] == [()] * 20
    assert sum(bool(caught_by(one)) for one in found) <= most_alarms(20, 0.02)


@pytest.mark.slow
def test_other_honest_jobs_are_accused_by_nothing() -> None:
    for job, count in ((small(0.25, noise=0.5, rounds=12), 200), (client_level(), 60)):
        assert audit(job, count=count, seed=1).found.refuted == ()
