"""Hazards in a report: which there are, whose word each is, and what it does to the status."""

from __future__ import annotations

from pathlib import Path

from securefl import report, settings
from securefl.report import declared, hazards
from securefl.report.document import Report
from securefl.report.hazards import Hazard, Listed, hazard
from securefl.settings import EMBEDDED, Nvflare
from tests.securefl.report.runs import NOT_PRIVATE, Scene


def assembled(scene: Scene, folder: Path) -> Report:
    return report.assembled(scene.write(folder / "run"))


def test_every_kind_of_hazard_says_what_it_does_to_the_status() -> None:
    for kind, (weight, effect) in hazards.EFFECTS.items():
        assert hazard(kind, "text") == Hazard(kind, "text", weight, effect)
        assert ("status stands" in effect.lower()) == (weight != "voids"), kind


def test_exact_metrics_void_the_status(tmp_path: Path) -> None:
    exact = hazard("exact-metrics", "exact accuracies on held-out records")
    found = assembled(Scene(hazards=(exact,)), tmp_path).status
    assert (found.word, found.reasons) == ("not private", ("Exact accuracies on held-out records.",))


def test_hazards_that_plan_and_job_imply_are_listed_even_if_the_run_left_them_out(tmp_path: Path) -> None:
    found = listed(Scene(NOT_PRIVATE, hazards=()), tmp_path)
    assert {one.kind: one.source for one in found} == {
        "no-dp": "the plan",
        "public-test": "the plan",
        "preprocessing": "the job file",
        "sample-counts": "the job file",
        "single-process": "the engine's settings",
    }


def test_times_are_a_hazard_of_every_run_over_sites_even_if_the_run_left_it_out(tmp_path: Path) -> None:
    folder = Scene(hazards=()).write(tmp_path / "run")
    settings.write(Nvflare("/coordinator"), folder)
    made = report.assembled(folder)
    assert not isinstance(made.hazards, str)
    assert {one.kind: one.source for one in made.hazards}["timing"] == "the engine's settings"
    assert "single-process" not in {one.kind for one in made.hazards}
    assert made.status.word == "private"


def test_it_is_said_whose_word_each_hazard_is(tmp_path: Path) -> None:
    told = (hazard("tuning", "tuned"), *declared.of_run(Scene().job, EMBEDDED))
    found = listed(Scene(hazards=told), tmp_path)
    assert [one.text for one in found if one.source == "the server's summary"] == ["tuned"]
    shown = report.render(tmp_path / "run").read_text(encoding="utf-8")
    assert shown.count("Known from the server&#39;s summary, for which the server alone vouches.") == 1
    assert shown.count("Known from the job file.") == 2
    assert shown.count("Known from the engine&#39;s settings, for which the server alone vouches.") == 1


def test_how_an_owners_own_loader_prepares_records_is_unknown(tmp_path: Path) -> None:
    made = assembled(Scene(hazards=()), tmp_path)
    assert made.data.prepared == "unknown"
    assert not isinstance(made.hazards, str)
    assert any("how own_data:load scales the features is not checked" in one.text for one in made.hazards)


def listed(scene: Scene, folder: Path) -> tuple[Listed, ...]:
    found = assembled(scene, folder).hazards
    assert not isinstance(found, str)
    return found


def test_the_same_hazard_is_listed_once_and_the_gravest_first(tmp_path: Path) -> None:
    told = (hazard("tuning", "tuned"), hazard("tuning", "tuned twice"), hazard("no-dp", "our words"))
    found = listed(Scene(NOT_PRIVATE, hazards=(*told, *declared.of_run(Scene().job, EMBEDDED))), tmp_path)
    assert [(one.kind, one.weight) for one in found] == [
        ("no-dp", "voids"),
        ("preprocessing", "uncovered"),
        ("sample-counts", "uncovered"),
        ("tuning", "uncovered"),
        ("tuning", "uncovered"),
        ("public-test", "uncovered"),
        ("single-process", "assumed"),
    ]
    assert found[0].text == "no differential privacy: nothing bounds what the model reveals about one record"


def test_a_hazard_cannot_bring_its_own_effect() -> None:
    assert hazards.of(Hazard("no-dp", "text", "assumed", "none")) == hazard("no-dp", "text")
    assert hazards.of("plain text") == hazard("other", "plain text")
