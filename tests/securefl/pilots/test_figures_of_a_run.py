"""A run tells more of its model than its accuracy: in the summary, at the command line, in the report and its card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from securefl import cli, job
from securefl.job.federation import of_pilot
from securefl.pilots.students import GRADES
from securefl.report import read
from securefl.report.card import markdown
from securefl.run import Run


@pytest.mark.parametrize("kind", ["secagg", pytest.param("ckks", marks=pytest.mark.slow)])
def test_a_classifier_has_log_loss_and_calibration(kind: str, tmp_path: Path) -> None:
    run = Run.create(job.from_pilot("digits", kind, rounds=1, private=False), tmp_path / "run")
    list(run.rounds())
    summary = run.finish()
    run.close()
    assert set(summary.metrics) == {"log_loss", "calibration_error"}
    assert 0 < summary.metrics["log_loss"] < 2.3  # better than guessing among ten
    report = read(tmp_path / "run")
    assert report.utility.metrics == summary.metrics
    assert "on the same test set: log-loss" in markdown(report)
    assert "on the same test set: log-loss" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert cli.main(["verify", str(tmp_path / "run")]) == 0


@pytest.mark.needs_data
def test_a_regression_has_errors_in_grade_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert (
        cli.main(["demo", "--pilot", "students", "--no-dp", "--drop", "none", "--rounds", "2", "--out", str(out)]) == 0
    )
    assert "mean absolute error" in (told := capsys.readouterr().out) and "grade points" in told
    summary = json.loads((out / "summary.json").read_bytes())
    assert set(summary["metrics"]) == {"mae", "rmse"} and summary["metrics_unit"] == "grade points"
    assert 2 < summary["metrics"]["mae"] < summary["metrics"]["rmse"] < 5  # of 20: the unit is points, not labels


def test_a_pilots_scale_reaches_whoever_measures() -> None:
    assert of_pilot(GRADES, GRADES.clients, None).scale == GRADES.scale
