"""The model card says what the report says, with nothing in it that a job file could turn into markup."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from securefl import report
from securefl.report import card
from tests.securefl.report.runs import NOT_PRIVATE, Scene


def made(folder: Path, scene: Scene = Scene()) -> str:  # noqa: B008
    return card.markdown(report.assembled(scene.write(folder / "run")))


def test_the_sections_are_those_of_a_model_card(tmp_path: Path) -> None:
    titles = [line[3:] for line in made(tmp_path).splitlines() if line.startswith("## ")]
    assert titles[:6] == ["Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data"]
    assert titles[-2:] == ["Ethical considerations", "Caveats"]


def test_status_figures_and_hazards_are_on_the_card(tmp_path: Path) -> None:
    text = made(tmp_path)
    for words in (
        "**private**",
        "0.947",
        "| 2.989 | 2.989 |",
        "scaling constants computed from these records",
        "cd" * 32,
    ):
        assert words in text


@pytest.mark.parametrize(("scene", "word"), [(Scene(NOT_PRIVATE), "not private"), (Scene(rounds=0), "unfinished")])
def test_the_card_of_a_run_that_is_not_private_says_so_first(tmp_path: Path, scene: Scene, word: str) -> None:
    assert made(tmp_path, scene).splitlines()[2].startswith(f"**{word}**")


def test_markup_in_a_name_stays_text(tmp_path: Path) -> None:
    made_ = report.assembled(Scene().write(tmp_path / "run"))
    text = card.markdown(replace(made_, run=replace(made_.run, job="<b>[x](y)|`z`\n# title")))
    assert text.splitlines()[0] == r"# Model card: \<b\>\[x\](y)\|\`z\` # title"
