"""The command line as a person, a script and a tired person meet it. Real runs are small."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from securefl import cli
from securefl.errors import BudgetExceeded, LedgerError, RoundFailed
from securefl.run import Run
from tests.securefl.report.runs import Scene

ROOT = Path(__file__).parents[2]
DEMO = ["demo", "--rounds", "2", "--no-dp"]


def last(output: str) -> Any:
    """The last line of stdout, as JSON."""
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize("command", ["demo", "run", "check", "resume", "report", "verify", "doctor"])
def test_the_help_of_each_command_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    output = capsys.readouterr().out
    assert f"Example:  securefl {command}" in output
    assert "--json" in output


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_without_a_command_the_help_says_where_to_begin(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 0
    output = capsys.readouterr().out
    assert "securefl demo" in output
    assert "Exit codes: 0 ok, 2 bad input, 3 budget refused" in " ".join(output.split())


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("securefl ")


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from securefl import cli; cli.main(['demo', '--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    for heavy in ("'torch'", "'opacus'", "'sklearn'", "'matplotlib'", "'tenseal'", "'numpy'"):
        assert heavy not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dmeo"], "No such command 'dmeo'"),
        (["run"], "Missing argument 'JOB.toml'"),
        (["run", "none.toml"], "cannot read the job file none.toml"),
        (["resume", "none"], "none is not"),
        (["report", "none"], "none is not a run"),
        (["demo", "--rounds", "many"], "--rounds"),
        (["demo", "--rounds", "0"], "job.rounds: impossible value 0"),
        (["demo", "--pilot", "herat"], "Did you mean 'heart'?"),
        (["demo", "--protection", "sekagg"], "Did you mean 'secagg'?"),
        (["demo", "--drop", "hospital-3"], "CLIENT@EXCHANGE"),
        (["demo", "--drop", "hospital-9@2"], "no client 'hospital-9'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*arguments, "--json"]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err
    failure = last(captured.out)
    assert failure["exit_code"] == 2
    assert words in failure["message"]
    assert failure["error"]
    assert list(tmp_path.iterdir()) == []


def test_a_job_is_looked_at_without_leaving_a_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Security level, bytes and error are said before anything runs, to people and to machines."""
    path, job = tmp_path / "job.toml", '[data]\npilot = "breast-cancer"\n[protection]\nkind = "ckks"\n'
    path.write_text(job + 'profile = "compact"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["check", "job.toml"]) == 0
    said = capsys.readouterr().out
    for words in ("32-bit prime, 256-bit security", "bytes a parameter", "which put the mean off by", "lost in it"):
        assert words in said
    assert cli.main(["check", "job.toml", "--json"]) == 0
    found = last(capsys.readouterr().out)
    assert (found["encoding"]["bits"], found["encoding"]["security_bits"], found["dimension"]) == (32, 256, 62)
    assert [entry.name for entry in tmp_path.iterdir()] == ["job.toml"]
    path.write_text(job + "bound = 1e12\nbits = 32\n", encoding="utf-8")
    assert cli.main(["check", "job.toml"]) == 2
    assert "is coarser than the noise of an update" in capsys.readouterr().err


def test_a_folder_that_is_taken_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    assert cli.main([*DEMO, "--out", str(tmp_path), "--json"]) == 2
    assert last(capsys.readouterr().out)["error"] == "RunExists"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_demo_runs_to_its_end_and_prints_its_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert cli.main([*DEMO, "--out", str(folder), "--json"]) == 0
    captured = capsys.readouterr()
    summary = last(captured.out)
    assert len(captured.out.splitlines()) == 1
    assert summary.keys() >= {
        "accuracy",
        "accuracy_centralised",
        "epsilon",
        "delta",
        "rounds",
        "protection",
        "dropouts_recovered",
        "upload_bytes",
        "run",
    }
    assert (summary["rounds"], summary["protection"], summary["dropouts_recovered"]) == (2, "secagg", 1)
    assert "Who can see what under secagg" in captured.err.splitlines()[0]
    assert "\x1b" not in captured.err
    assert (folder / "report.html").is_file()


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert cli.main([*DEMO, "--drop", "none", "--out", str(folder), "--json"]) == 0
    first = last(capsys.readouterr().out)
    history = (folder / "history.jsonl").read_bytes()
    assert cli.main(["resume", str(folder), "--json"]) == 0
    assert last(capsys.readouterr().out)["accuracy"] == first["accuracy"]
    assert (folder / "history.jsonl").read_bytes() == history


def test_too_many_silent_clients_end_with_exit_code_five(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drops = [word for i in (1, 2, 3) for word in ("--drop", f"hospital-{i}@2:1")]
    assert cli.main([*DEMO, *drops, "--out", str(tmp_path / "run"), "--json"]) == 5
    assert last(capsys.readouterr().out)["exit_code"] == 5


def test_a_report_is_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Scene().write(tmp_path / "run")
    assert cli.main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert cli.main(["report", str(folder), "--json"]) == 0
    assert last(capsys.readouterr().out) == {"report": str(folder / "report.html")}


def test_doctor_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    words = capsys.readouterr().out
    for expected in ("torch", "GB/s of AES-128-CTR", "extra ray", "256-bit security", "breast-cancer"):
        assert expected in words
    assert cli.main(["doctor", "--json"]) == 0
    assert last(capsys.readouterr().out)["ckks"]["standard"]["degree"] == 4096


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BudgetExceeded("hospital-1", 2.9, 3.1, 3.0, 0), 3),
        (LedgerError("not ours"), 4),
        (RoundFailed("two left"), 5),
        (cli.Interrupted("stopped"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes_are_what_the_help_says(error: BaseException, code: int) -> None:
    assert cli._explained(error, verbose=False)[0] == code


def test_protocol_errors_have_their_own_codes() -> None:
    from protocols.errors import ConfigurationError, Forged, RoundAborted

    assert cli._explained(Forged("a signature"), verbose=False)[0] == 4
    assert cli._explained(RoundAborted("two left", {}, {}), verbose=False)[0] == 5
    assert cli._explained(ConfigurationError("would wrap"), verbose=False)[0] == 2


def test_a_fault_of_ours_is_one_line_and_the_way_to_the_traceback() -> None:
    code, message = cli._explained(ZeroDivisionError("oops"), verbose=False)
    assert (code, message) == (1, "unexpected ZeroDivisionError: oops; run again with -v for the traceback")


def test_ctrl_c_leaves_a_run_that_can_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "securefl.cli",
        "demo",
        "--rounds",
        "40",
        "--no-dp",
        "--out",
        str(folder),
        "--json",
    ]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "80"},
        # Whoever started these tests in the background may have had them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    history = folder / "history.jsonl"
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline and not (history.exists() and history.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert f"securefl resume {folder}" in last(output)["message"]
    done = len(Run.open(folder).history)
    assert 1 <= done < 40
    assert cli.main(["report", str(folder)]) == 0
    assert "unfinished" in (folder / "report.html").read_text(encoding="utf-8")
