"""``report``, ``verify`` and ``ledger`` on real runs, and a ledger that refuses, as a person meets them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import falsified
from securefl import cli
from securefl.privacy import accountant
from securefl.privacy.ledger import read
from securefl.privacy.mechanism import DPSGD
from securefl.run import Run
from tests.securefl.verification import toy


def last(output: str) -> Any:
    """The last line of stdout, as JSON."""
    return json.loads(output.splitlines()[-1])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.finished(toy.job(), tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A run that a test may change."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


@pytest.fixture
def ledger(run: Path) -> Path:
    return run / "ledgers" / "ada.sqlite"


# ---- verify


def test_a_run_in_order_ends_with_exit_code_0(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(run)]) == 0
    said = capsys.readouterr().out
    assert "proves " in said and "unproven " in said and "MISMATCH" not in said
    assert said.splitlines()[-1].startswith("status    private")
    assert cli.main(["verify", str(run), "--json"]) == 0
    captured = capsys.readouterr()
    verdict = last(captured.out)
    assert (verdict["problems"], verdict["unchecked"], verdict["status"]) == ([], [], "private")
    assert len(captured.out.splitlines()) == 1 and "proves " in captured.err


def test_a_falsified_run_ends_with_exit_code_4_and_a_line_that_names_it(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    falsified.ledger_truncated(copy)
    assert cli.main(["verify", str(copy)]) == 4
    captured = capsys.readouterr()
    assert re.search(r"^MISMATCH  ledger of ada: .*rolled back", captured.out, re.MULTILINE)
    assert captured.err == f"securefl: 1 mismatch in {copy}: rely on no figure of its report\n"
    assert cli.main(["verify", str(copy), "--json"]) == 4
    (problem,) = last(capsys.readouterr().out)["problems"]
    assert "rolled back" in problem


def test_ledgers_elsewhere_are_named_and_missing_ones_are_skipped(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = (copy / "ledgers").rename(tmp_path / "theirs")
    assert cli.main(["verify", str(copy)]) == 0
    assert capsys.readouterr().out.count("skipped   the ledger of ") == len(toy.CLIENTS)
    assert cli.main(["verify", str(copy), "--ledgers", str(moved)]) == 0
    assert "skipped" not in capsys.readouterr().out


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_what_is_no_run_or_damaged_is_exit_code_2_without_a_traceback(
    copy: Path, tmp_path: Path, as_json: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", str(tmp_path / "none"), *as_json]) == 2
    assert "has no privacy_report.json" in capsys.readouterr().err
    for name, content in (("privacy_report.json", b'{"run": '), ("plan.json", b"\xff"), ("statements.json", b"[1]")):
        original = (copy / name).read_bytes()
        (copy / name).write_bytes(content)
        assert cli.main(["verify", str(copy), *as_json]) == 2
        captured = capsys.readouterr()
        assert "damaged" in captured.err and "Traceback" not in captured.err
        assert not as_json or last(captured.out)["exit_code"] == 2
        (copy / name).write_bytes(original)


# ---- ledger


def test_a_ledger_is_shown_charge_by_charge(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ledger", "show", str(ledger)]) == 0
    said = capsys.readouterr().out
    assert len(re.findall(r"round [12], attempt \d+: DPSGD\(", said)) == 2
    assert "ada: data set 'toy', each record" in said and "after charge 2: epsilon" in said
    assert cli.main(["ledger", "show", str(ledger), "--json"]) == 0
    found = last(capsys.readouterr().out)
    spent = accountant.epsilon([DPSGD(4.0, 1.0, 1)] * 2, 1e-5)
    assert (found["client"], found["data"], len(found["charges"])) == ("ada", "toy", 2)
    assert found["epsilons"] == [pytest.approx(spent)]


def test_a_ledger_and_its_export_are_verified(ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ledger", "export", str(ledger)]) == 0
    export = tmp_path / "ada.json"
    export.write_text(capsys.readouterr().out, encoding="utf-8")
    key = read(ledger).header.public_key.hex()
    for path in (ledger, export):
        assert cli.main(["ledger", "verify", str(path)]) == 0
        assert "compare it with the owner's" in capsys.readouterr().out
        assert cli.main(["ledger", "verify", str(path), "--key", key]) == 0
        assert "under the expected key" in capsys.readouterr().out
        assert cli.main(["ledger", "verify", str(path), "--key", "00" * 32, "--json"]) == 4
        assert "it is not this client's" in last(capsys.readouterr().out)["message"]
    export.write_text(export.read_text(encoding="utf-8").replace('"steps": 1', '"steps": 2'), encoding="utf-8")
    assert cli.main(["ledger", "verify", str(export)]) == 4
    assert f"{export} was altered" in capsys.readouterr().err


def test_a_ledger_that_nothing_was_charged_to_is_verified_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Run.create(toy.job(), tmp_path / "run")
    assert cli.main(["ledger", "verify", str(tmp_path / "run" / "ledgers" / "ada.sqlite")]) == 0
    assert "0 charges" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["show", "verify", "export"])
def test_what_is_no_ledger_is_said_to_be_none(
    run: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("no ledger", encoding="utf-8")
    (tmp_path / "empty").write_bytes(b"")
    cases = {
        run / "clients" / "ada" / "store.sqlite": "is a database of another program",
        tmp_path / "notes.txt": "is not a ledger, or is damaged",
        tmp_path / "empty": "is empty, which no ledger is",
    }
    for path, words in cases.items():
        assert cli.main(["ledger", command, str(path)]) == 4
        captured = capsys.readouterr()
        assert words in captured.err and captured.out == ""


def test_a_ledger_that_is_not_there_and_a_key_that_is_none_are_bad_input(
    ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path / "none.sqlite", tmp_path):
        assert cli.main(["ledger", "verify", str(path)]) == 2
        assert f"cannot read {path}" in capsys.readouterr().err
    for key in ("zz", "00", "0" * 63):
        assert cli.main(["ledger", "verify", str(ledger), "--key", key]) == 2
        assert "is no public key" in capsys.readouterr().err


# ---- report


@pytest.mark.parametrize(
    ("form", "name", "words"),
    [
        ("html", "report.html", "<!doctype html>"),
        ("json", "privacy_report.json", '"format":"securefl-privacy-report/1"'),
        ("dp-registry", "dp_registry.yaml", "privacy_loss"),
        ("model-card", "model_card.md", "# "),
    ],
)
def test_a_report_is_written_in_four_forms_and_verifies_after_each(
    copy: Path, form: str, name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (copy / "privacy_report.json").read_bytes()
    assert cli.main(["report", str(copy), "--format", form]) == 0
    assert capsys.readouterr().out.strip() == str(copy / name)
    assert words in (copy / name).read_text(encoding="utf-8").lower().replace('"format": "', '"format":"')
    assert (copy / "privacy_report.json").read_bytes() == before
    assert cli.main(["verify", str(copy)]) == 0


def test_another_form_is_refused_and_the_known_ones_are_listed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(run), "--format", "pdf"]) == 2
    said = capsys.readouterr().err
    assert all(form in said for form in ("html", "json", "dp-registry", "model-card"))


# ---- one ledger, several runs

_JOB = """
[job]
name = "one of several"
rounds = 2
[data]
name = "toy"
loader = "tests.securefl.verification.toy:load"
clients = ["ada", "bob", "cyd"]
[data.sizes]
ada = 40
bob = 40
cyd = 40
[model]
factory = "tests.securefl.verification.toy:model"
[training]
learning_rate = 0.5
sampling_rate = 1.0
steps = 1
[privacy]
epsilon = {epsilon}
delta = 1e-5
noise_multiplier = 5.0
"""


def test_runs_on_one_ledger_go_on_until_the_budget_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a budget for five rounds, two runs of two leave one round: a third run is refused, one of a round is not."""
    five, six = (accountant.epsilon([DPSGD(5.0, 1.0, 1)] * rounds, 1e-5) for rounds in (5, 6))
    job, cap = tmp_path / "job.toml", (five + six) / 2
    job.write_text(_JOB.format(epsilon=cap), encoding="utf-8")

    def run(name: str) -> tuple[int, str]:
        code = cli.main(["run", str(job), "--out", str(tmp_path / name)])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    code, said = run("first")
    assert code == 0 and "carried over" not in said
    code, said = run("second")
    assert code == 0
    four = accountant.epsilon([DPSGD(5.0, 1.0, 1)] * 4, 1e-5)
    two = accountant.epsilon([DPSGD(5.0, 1.0, 1)] * 2, 1e-5)
    carried = f"carried over: ada epsilon {two:.2f} by 2 charges of earlier runs of {cap:g}; 3 more rounds"
    assert carried in said
    code, said = run("third")
    assert code == 3 and "round 1 of" not in said
    refused = (
        f"securefl: ada: budget refused: spent epsilon {four:.3f}, 2 more rounds would make it {six:.3f}, "
        f"the cap is {cap:.3f}; rounds like this one that still fit: 1\n"
    )
    assert refused in said
    assert not (tmp_path / "third").exists()
    ledgers = tmp_path / "ledgers" / "toy"
    assert all(len(read(path).entries) == 4 for path in ledgers.glob("???.sqlite"))
    job.write_text(_JOB.format(epsilon=cap).replace("rounds = 2", "rounds = 1"), encoding="utf-8")
    code, said = run("third")
    assert code == 0 and "carried over: ada" in said
    for name in ("first", "second", "third"):
        assert cli.main(["verify", str(tmp_path / name)]) == 0
    assert cli.main(["ledger", "verify", str(ledgers / "ada.sqlite")]) == 0
    assert "5 charges" in capsys.readouterr().out
