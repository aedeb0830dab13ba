from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from benchmarks import falsified, privacy, steps
from benchmarks.__main__ import SUBJECTS
from benchmarks.rows import Row
from benchmarks.steps import Seconds
from securefl.privacy.ledger import read
from securefl.privacy.mechanism import Budget


def by_name(rows: Iterable[Row]) -> dict[str, Row]:
    return {row.name: row for row in rows}


def test_it_is_a_subject_of_the_one_command() -> None:
    assert "privacy" in SUBJECTS


def test_epsilons_are_compared_with_their_known_values(tmp_path: Path) -> None:
    rows = by_name(privacy.epsilon_rows(tmp_path, quick=True))
    assert {name: (row.goal, row.met) for name, row in rows.items()} == {
        "epsilon_q01_s1_t1000": (1.828, True),
        "epsilon_five_rounds": (3.50, True),
    }
    assert len(read(tmp_path / "five.sqlite").entries) == 5
    assert privacy._known_row("", 1.85, 1.828, 0.01, True).met is False


def test_skellam_noise_costs_less_than_a_thousandth_of_epsilon_more_than_a_gaussian() -> None:
    row = privacy.skellam_row(privacy.MILLION, quick=True)
    assert (row.name, row.goal, row.met) == ("skellam_overhead_1m_percent", 0.1, True)
    assert 0 < row.value < 0.05


def test_charges_are_timed_and_go_on_where_the_file_ends(tmp_path: Path) -> None:
    budget = Budget(2.0, privacy.DELTA)
    parts = [privacy.charge(tmp_path / "one.sqlite", first, 2, 2, budget) for first in (0, 4)]
    assert all(part.seconds > 0 and part.waited >= 0 for part in parts)
    assert 0 < parts[0].epsilon < parts[1].epsilon
    assert [entry.round for entry in read(tmp_path / "one.sqlite").entries] == list(range(8))


@pytest.mark.slow
def test_composing_signing_and_the_disk_are_told_apart(tmp_path: Path) -> None:
    rows = by_name(privacy.charge_rows(tmp_path, 10, quick=True))
    assert {name: row.goal for name, row in rows.items()} == {
        "accounting_seconds_10_charges": 2.0,
        "signing_seconds_10_charges": None,
        "disk_seconds_10_charges": None,
        "accounting_seconds_first_charge_of_a_process": None,
    }
    assert rows["accounting_seconds_first_charge_of_a_process"].value > 0
    assert [entry.round for entry in read(tmp_path / "with.sqlite").entries] == list(range(11))


def test_kills_are_counted(tmp_path: Path) -> None:
    rows = by_name(privacy.crash_rows(4, quick=True))
    assert (rows["crash_points_run"].value, rows["crash_points_run"].goal) == (4, None)
    assert rows["crash_points_under_counted"].met
    assert by_name(privacy.crash_rows(2, quick=False))["crash_points_run"].met is False


def test_of_steps_the_worse_model_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = [Seconds(name, ours, 1.0, 1.0, 0.5, 0.1, 0.1, 0.1) for name, ours in (("mlp", 0.8), ("lenet", 1.4))]
    monkeypatch.setattr(steps, "secure_noise_step_vs_torch_noise_step", lambda repetitions: measured)
    rows = by_name(privacy.step_rows(quick=True))
    worst = rows["secure_noise_step_vs_torch_noise_step"]
    assert (worst.value, worst.goal, worst.met) == (1.4, 1.3, False)
    assert rows["secure_noise_step_vs_torch_noise_step_mlp"].met


def test_what_is_not_noticed_in_falsified_runs_is_counted_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {"nothing": lambda folder: None, "model replaced": falsified.model_replaced}
    monkeypatch.setattr(falsified, "FALSIFICATIONS", nothing)
    rows = by_name(privacy.falsified_rows(("plain",), quick=True))
    assert (rows["falsified_runs_missed"].value, rows["falsified_runs_missed"].met) == (1, False)
    assert rows["falsified_runs"].value == 2
    assert not rows["missed: nothing, plain"].met
