"""The examples run as their files say, from copies, so that no ledger is left beside them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from securefl import cli, job

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the example, as the folder in which securefl is started."""
    folder = tmp_path / "own_data"
    shutil.copytree(EXAMPLES / "own_data", folder, ignore=shutil.ignore_patterns("ledgers", "runs", "__pycache__"))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield folder
    sys.modules.pop("clinics", None)


def run(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> Any:
    assert cli.main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def copied(name: str, folder: Path, **changes: str) -> Path:
    """A job file in a folder of its own, with some words replaced."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.rglob("*.toml")), ids=lambda path: path.relative_to(EXAMPLES).as_posix()
)
def test_every_job_file_is_valid_and_says_how_to_start_it(path: Path) -> None:
    assert job.load(path).rounds >= 1
    assert "securefl run" in path.read_text(encoding="utf-8").partition("[job]")[0]


def test_your_own_data_and_model_run_as_the_readme_says(own_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run(["run", "job.toml", "--out", "first"], capsys)
    assert summary["accuracy"] > 0.8  # five runs gave .86 to .89; the larger class alone gives .62
    assert summary["epsilon"] == pytest.approx(3.50, abs=0.01)
    assert summary["server_view"]["updates_readable"] == 0
    assert any("clinics:load scales the features" in hazard["text"] for hazard in summary["hazards"])
    assert (own_data / "first" / "report.html").is_file()


def test_the_clinics_remember_what_an_earlier_run_spent(own_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (own_data / "job.toml").read_text(encoding="utf-8").replace("epsilon = 6.0", "epsilon = 4.0")
    (own_data / "job.toml").write_text(text, encoding="utf-8")
    run(["run", "job.toml", "--out", "first"], capsys)
    failure = run(["run", "job.toml", "--out", "second"], capsys, code=3)
    assert "budget refused: spent epsilon 3.50" in failure["message"] and "still fit: " in failure["message"]
    assert not (own_data / "second").exists()  # not one of its rounds began


def test_a_loader_that_is_misspelt_is_named(own_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (own_data / "job.toml").read_text(encoding="utf-8").replace("clinics:load", "clinics:lod")
    (own_data / "job.toml").write_text(text, encoding="utf-8")
    assert "Did you mean 'load'?" in run(["run", "job.toml"], capsys, code=2)["message"]


def test_the_readme_names_what_is_there(own_data: Path) -> None:
    readme = (own_data / "README.md").read_text(encoding="utf-8")
    for name in ("job.toml", "clinics.py", "data/*.csv", "public.csv", "ledgers/clinics-2024", "exit code 3"):
        assert name in readme


def test_breast_cancer_is_learnt_within_its_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copied("breast_cancer.toml", tmp_path)
    summary = run(["run", str(path), "--out", str(tmp_path / "run")], capsys)
    assert summary["accuracy"] > 0.85  # a wide margin: noise differs in every run
    assert summary["epsilon"] <= 3.0
    assert summary["dropouts_recovered"] == 1
    assert (tmp_path / "ledgers" / "breast-cancer").is_dir()


@pytest.mark.needs_data
@pytest.mark.parametrize("kind", ["secagg", "ckks"])
def test_heart_reaches_what_is_published(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copied("heart.toml", tmp_path, **{'kind = "secagg"': f'kind = "{kind}"'})
    summary = run(["run", str(path), "--out", str(tmp_path / "run")], capsys)
    assert summary["protection"] == kind
    assert summary["accuracy"] >= 0.79
