"""What a survey found is in the report: counts as they were told, and figures that follow from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from securefl import report, survey
from securefl.report.document import Report
from securefl.report.surveyed import Surveyed
from securefl.survey import Found
from tests.securefl.report.runs import CLIENTS, COUNTS, JOB, SURVEYED, Scene, found


def assembled(folder: Path, scene: Scene) -> Report:
    return report.assembled(scene.write(folder / "run"))


def test_the_counts_are_those_that_were_told_and_the_rest_follows_from_the_plan(tmp_path: Path) -> None:
    """Not from the server's summary, which may flatter."""
    flattered = {name: replace(one, mean=1.0, worst=1.0, deviation=0.0) for name, one in found().spread.items()}
    told = assembled(tmp_path, Scene(SURVEYED, found=replace(found(), clients=500, spread=flattered))).utility.survey
    assert isinstance(told, Surveyed)
    assert told.federated.counts == COUNTS["federated"]
    # 0.25 of a client's part, which is sqrt(3) long, from 3 of 5: a plan for five has 4 in a sum, one of them peering.
    assert told.deviation == pytest.approx(0.25 * (3 * 5 / 3) ** 0.5)
    assert (told.clients, told.auc, told.calibration) == (5, 0.912, 0.034)
    assert 0.7 < told.federated.mean < 0.875
    assert told.local.worst == 0.125


def test_without_a_survey_the_report_is_as_it_was_before_there_were_any(tmp_path: Path) -> None:
    made = assembled(tmp_path, Scene())
    assert made.utility.survey == "none"
    report.write(tmp_path / "run", made)
    assert b'"survey"' not in (tmp_path / "run" / report.JSON).read_bytes()


@pytest.mark.parametrize("scene", [Scene(SURVEYED), Scene(SURVEYED, rounds=4), Scene(SURVEYED, rounds=0)])
def test_a_survey_that_is_to_come_or_that_nobody_told_of_is_unknown(tmp_path: Path, scene: Scene) -> None:
    assert assembled(tmp_path, scene).utility.survey == "unknown"


def test_the_survey_is_no_round_of_training(tmp_path: Path) -> None:
    made = assembled(tmp_path, Scene(SURVEYED, found=found()))
    assert (made.run.rounds_done, made.run.rounds_planned, len(made.rounds)) == (10, 10, 11)


def _with_counts(counts: tuple[float, ...]) -> Found:
    spread = found().spread
    return replace(found(), spread=spread | {"local": replace(spread["local"], counts=counts)})


@pytest.mark.parametrize(
    ("toml", "told", "fault"),
    [
        (JOB, found(), "was not planned"),
        (SURVEYED, replace(found(), spread={"federated": found().spread["federated"]}), "is of other models"),
        (SURVEYED, _with_counts((1.0, 2.0, 2.0)), "has counts of local that no sum of 4 classes gives"),
        (SURVEYED, _with_counts((1.0, 2.0, 1e300, -1e300)), "has counts of local"),
        (SURVEYED, replace(found(), auc=1.5), "has figures of scores that no scores give"),
        (SURVEYED.replace("scores = 5.0", ""), found(), "has figures of scores"),
    ],
)
def test_a_survey_that_the_plan_cannot_have_led_to_is_a_violation(
    tmp_path: Path, toml: str, told: Found, fault: str
) -> None:
    made = assembled(tmp_path, Scene(toml, found=told))
    assert made.status.word == "violated"
    assert f"the summary's survey {fault}" in made.status.reasons[0]
    assert isinstance(made.utility.survey, str)


def test_the_models_are_those_that_a_survey_asks_of() -> None:
    from securefl.report import across

    assert tuple(across.MODELS) == survey.MODELS
    assert len(CLIENTS) == sum(round(count) for count in COUNTS["federated"])
