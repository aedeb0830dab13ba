"""Whatever is typed, or lies where a file should be: one clear message and exit code 2, and never a fault of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from securefl import cli
from tests.securefl.report.runs import Scene

JOB = """
[job]
name = "absurd"
rounds = 1
[data]
name = "toy"
loader = "tests.securefl.verification.toy:load"
clients = ["ada", "bob", "cyd"]
[model]
factory = "tests.securefl.verification.toy:model"
[training]
learning_rate = 0.5
sampling_rate = 1.0
steps = 1
[privacy]
epsilon = 3.0
delta = 1e-5
noise_multiplier = 5.0
ledger = "ledgers"
[protection]
colluders = 0
[simulation]
drop = []
"""
NINES = "9" * 5000


def said(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """What a command says that is to end with this code."""
    assert cli.main([*arguments, "--json"]) == code
    captured = capsys.readouterr()
    failure = json.loads(captured.out.splitlines()[-1])
    assert failure["exit_code"] == code
    message = str(failure["message"])
    assert "unexpected" not in message and "Traceback" not in captured.err
    assert captured.err == f"securefl: {message}\n"
    assert len(message) < 500
    return message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rounds = 1", f"rounds = {NINES}", "too large for anything here"),
        ("rounds = 1", f"rounds = 0x{'f' * 5000}", "job.rounds: a whole number is too large"),
        ("rounds = 1", "rounds = 1000000000000000000", "job.rounds: impossible value 1000000000000000000"),
        ("rounds = 1", "rounds = -1", "Write a whole number from 1 to 1,000,000"),
        ("rounds = 1", "rounds = 1979-05-27", "job.rounds: expected a whole number, got 1979-05-27"),
        ("rounds = 1", "rounds = " + "[" * 5000, "nested too deeply"),
        ("rounds = 1", "rounds = " + "[" * 400 + "]" * 400, "expected a whole number, got ["),
        ("[job]", "[" + ".".join("a" * 5000) + "]\n[job]", "nested too deeply"),
        ("[job]", f"[{'a' * 5000}]\n[job]", "unknown section"),
        ("steps = 1", "steps = 1000000000000", "steps is 1000000000000: it must be above 0 and at most 1e+09"),
        ("sampling_rate = 1.0", "sampling_rate = 1e-300", "sampling_rate is 1e-300: it must be above 1e-09"),
        ("sampling_rate = 1.0", "sampling_rate = 9.9e-10", "sampling_rate is 9.9e-10: it must be above 1e-09"),
        ("sampling_rate = 1.0", "sampling_rate = nan", "training.sampling_rate: nan is not a finite number"),
        ("drop = []", "drop = [inf]", "simulation.drop: inf is not a finite number"),
        ("drop = []", f"drop = ['{'@' * 5000}']", "is not CLIENT@EXCHANGE"),
        ("drop = []", f"enabled = true\nseed = {2**63}", "simulation.seed: a whole number is too large"),
        ('["ada", ', f'["{"a" * 5000}", ', "cannot be a client's name"),
        ("colluders = 0", "colluders = 1000000000000000000", "protection.colluders: "),
        ('"ledgers"', '"a\\u0000b"', "privacy.ledger: contains a null character"),
        ("toy:load", "toy:" + "x" * 5000, "data.loader: impossible value"),
        ('[data]\nname = "toy"', '[data]\nname = "toy"\nsizes = { ada = -1 }', "Write each client's declared number"),
    ],
    ids=lambda text: text[:24],
)
def test_absurd_values_are_bad_input(
    old: str, new: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert old in JOB
    (tmp_path / "job.toml").write_text(JOB.replace(old, new, 1), encoding="utf-8")
    assert words in said(["check", str(tmp_path / "job.toml")], capsys)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "job: missing"),
        (b"\xff\xfe[\0j\0", "not UTF-8 text"),
        (b"\0" * 50, "not valid TOML"),
        (b"#" * 4_000_001, "more than 4 MB"),
    ],
)
def test_files_that_are_no_job_are_bad_input(
    content: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.toml").write_bytes(content)
    for command in ("check", "run"):
        assert words in said([command, str(tmp_path / "job.toml")], capsys)


def test_a_function_of_the_job_that_ends_the_process_is_not_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = JOB.replace("tests.securefl.verification.toy:model", "sys:exit")
    (tmp_path / "job.toml").write_text(text, encoding="utf-8")
    assert "code that the job names ended the process" in said(["check", str(tmp_path / "job.toml")], capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["check"],
        ["resume"],
        ["report"],
        ["verify"],
        ["demo", "--out"],
        ["ledger", "show"],
        ["ledger", "verify"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("name", ["nul\0", "\udcff", "x" * 300, "folder", "file/below"])
def test_names_that_no_file_can_have_and_folders_are_bad_input(
    arguments: list[str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    said([*arguments, str(tmp_path / name)], capsys)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "mine"]


def test_bytes_that_are_no_text_do_not_stop_the_message() -> None:
    """As a shell hands them over; also in JSON."""
    command = [os.fsencode(sys.executable), b"-m", b"securefl.cli"]
    done = subprocess.run([*command, b"check", b"\xff.toml", b"--json"], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"is not a name in UTF-8" in done.stderr and b"Traceback" not in done.stderr
    assert json.loads(done.stdout)["exit_code"] == 2


@pytest.mark.parametrize("name", ["job.toml", "plan.json", "history.jsonl", "transcript.jsonl", "summary.json"])
def test_what_is_not_what_it_should_be_in_a_run_is_bad_input(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Scene().write(tmp_path / "run")
    (folder / name).unlink()
    (folder / name).mkdir()
    assert str(folder) in said(["report", str(folder)], capsys)
    (folder / name).rmdir()
    for content in (b'{"a": "\xff"}\n', b"[" * 100_000 + b"\n", b"1" * 5000 + b"\n"):
        (folder / name).write_bytes(content)
        assert name in said(["report", str(folder)], capsys)


def test_a_folder_where_the_page_should_be_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Scene().write(tmp_path / "run")
    (folder / "report.html").mkdir()
    assert "report.html" in said(["report", str(folder)], capsys)


def test_what_may_not_be_read_or_written_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.toml").write_text(JOB, encoding="utf-8")
    (tmp_path / "job.toml").chmod(0)
    if os.access(tmp_path / "job.toml", os.R_OK):
        pytest.skip("this user may read and write everything")
    said(["check", str(tmp_path / "job.toml")], capsys)
    tmp_path.chmod(0o500)
    said(["demo", "--out", str(tmp_path / "run")], capsys)
    tmp_path.chmod(0o700)
