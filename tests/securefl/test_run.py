from __future__ import annotations

import hashlib
import itertools
import os
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from safetensors.numpy import load_file

from securefl import job, report
from securefl.errors import BadInput, BudgetExceeded, NotARun, RoundFailed, RunExists
from securefl.job import Job
from securefl.privacy.ledger import read
from securefl.records import RoundRecord, Summary
from securefl.run import Run
from securefl.transcript import Crossing
from securefl.verification import verified

CELLS = ("plain", "secagg", "ckks-unmasked", "ckks")


def demo(protection: str = "secagg", rounds: int = 2, private: bool = True, drop: tuple[str, ...] = ()) -> Job:
    return job.from_pilot("breast-cancer", protection, rounds=rounds, private=private, drop=drop)


@pytest.mark.parametrize("cell", CELLS)
def test_a_run_leaves_its_whole_story_in_its_folder(tmp_path: Path, cell: str) -> None:
    run = Run.create(demo(cell, drop=("hospital-3@2:2",)), tmp_path / "run")
    records = list(run.rounds())
    summary = run.finish()
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} >= {
        "job.toml",
        "plan.json",
        "history.jsonl",
        "transcript.jsonl",
        "summary.json",
        "statements.json",
        "privacy_report.json",
        "report.html",
    }
    assert [msgspec.json.decode(line, type=RoundRecord) for line in _lines(folder / "history.jsonl")] == records
    assert msgspec.json.decode((folder / "summary.json").read_bytes(), type=Summary) == summary
    assert summary.accuracy == records[-1].accuracy
    assert summary.dropouts_recovered == (1 if cell in ("secagg", "ckks") else 0)
    sealed = cell in ("ckks", "ckks-unmasked")
    # Where the server cannot read the model, every client writes it for itself, and nobody else does.
    places = [folder / "clients" / name for name in run.plan.clients] if sealed else [folder]
    written = sorted(path.parent for path in folder.rglob("model.safetensors"))
    assert written == places and Path(summary.model).parent == places[0]
    assert len({(place / "model.safetensors").read_bytes() for place in places}) == 1
    assert summary.model_sha256 == hashlib.sha256(Path(summary.model).read_bytes()).hexdigest()
    shapes = {name: value.shape for name, value in load_file(summary.model).items()}
    assert shapes == {"weight": (2, 30), "bias": (2,)}
    view = summary.server_view
    assert view.updates_received == 9
    assert view.updates_readable == (9 if cell == "plain" else 0)
    assert view.sums_readable == (2 if cell in ("plain", "secagg") else 0)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def test_an_existing_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(RunExists, match="exists and is not empty"):
        Run.create(demo(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotARun, match="not the folder of a run"):
        Run.open(tmp_path)


def test_a_run_whose_job_was_edited_is_refused(tmp_path: Path) -> None:
    Run.create(demo(), tmp_path / "run")
    text = (tmp_path / "run" / "job.toml").read_text()
    (tmp_path / "run" / "job.toml").write_text(text.replace("steps = ", "steps = 1"))
    with pytest.raises(NotARun, match="another plan"):
        Run.open(tmp_path / "run")


@pytest.mark.parametrize("cell", CELLS)
def test_a_stopped_run_goes_on_after_its_last_round(tmp_path: Path, cell: str) -> None:
    run = Run.create(demo(cell, rounds=4), tmp_path / "run")
    first = list(itertools.islice(run.rounds(), 2))
    resumed = Run.open(tmp_path / "run")
    assert resumed.history == first
    assert [record.round for record in resumed.rounds()] == [3, 4]
    assert resumed.finish().rounds == 4
    finished = Run.open(tmp_path / "run")  # once more, when nothing is left to do
    assert list(finished.rounds()) == []
    assert finished.finish().accuracy == resumed.finish().accuracy


@pytest.mark.parametrize("cell", ["secagg", "ckks"])
@pytest.mark.parametrize("last", [1, 3], ids=["between rounds", "after the last"])
def test_a_crash_between_a_commit_and_its_line_in_the_history_loses_nothing(
    tmp_path: Path, cell: str, last: int
) -> None:
    folder = tmp_path / "run"
    run = Run.create(demo(cell, rounds=3), folder)
    records = list(itertools.islice(run.rounds(), last))
    whole = (folder / "history.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "history.jsonl").write_bytes(b"".join(whole[:-1]) + whole[-1][:20])  # cut off in the middle of its line
    resumed = Run.open(folder)
    rest = list(resumed.rounds())
    assert rest[0] == replace(records[-1], seconds=rest[0].seconds)
    assert 0 < rest[0].seconds <= records[-1].seconds
    assert [record.round for record in resumed.history] == [1, 2, 3]
    resumed.finish()
    assert verified(folder).problems == ()


@pytest.mark.parametrize("kept", [[0], [0, 2], [0, 1, 2, 2]], ids=["too few", "a gap", "too many"])
def test_a_history_that_is_not_the_server_s_is_refused(tmp_path: Path, kept: list[int]) -> None:
    run = Run.create(demo(rounds=3), tmp_path / "run")
    list(run.rounds())
    whole = (tmp_path / "run" / "history.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "run" / "history.jsonl").write_bytes(b"".join(whole[index] for index in kept))
    with pytest.raises(NotARun, match="restore both from one backup"):
        list(Run.open(tmp_path / "run").rounds())


def test_two_processes_at_once_cannot_run_in_one_folder_and_one_that_reads_may(tmp_path: Path) -> None:
    run = Run.create(demo(rounds=2), tmp_path / "run")
    next(run.rounds())
    command = [sys.executable, "-m", "securefl", "resume", str(tmp_path / "run")]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert f"another process is running in {tmp_path / 'run'} (pid {os.getpid()})" in second.stderr
    assert Path(report.render(tmp_path / "run")).is_file()


def interrupt(run: Run, answers: int) -> None:
    """Have Ctrl-C come in place of the fourth client's next answer after so many."""
    interrupted = run._parties.clients[3]
    answer, count = interrupted.handle, itertools.count()

    def stop(request: bytes) -> bytes:
        if next(count) == answers:
            raise KeyboardInterrupt
        return answer(request)

    interrupted.handle = stop  # type: ignore[method-assign]


def test_ctrl_c_in_the_middle_of_a_round_leaves_it_charged_and_resumable(tmp_path: Path) -> None:
    run = Run.create(demo("ckks", rounds=3), tmp_path / "run")
    interrupt(run, answers=8)  # after two rounds' worth of answers have begun
    with pytest.raises(KeyboardInterrupt):
        list(run.rounds())
    charged = len(run._parties.clients[0].account.ledger.entries())
    resumed = Run.open(tmp_path / "run")
    list(resumed.rounds())
    summary = resumed.finish()
    assert summary.rounds == 3
    assert len(resumed._parties.clients[0].account.ledger.entries()) >= max(charged, 3)


def allowing(epsilon: float, rounds: int) -> Job:
    chosen = demo(rounds=rounds)
    return replace(chosen, privacy=replace(chosen.privacy, epsilon=epsilon))


def test_a_run_whose_rounds_do_not_all_fit_is_refused_before_the_first_and_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BudgetExceeded, match=r"40 more rounds .* still fit: 15") as refusal:
        Run.create(demo(rounds=40), tmp_path / "run")
    assert refusal.value.spent == 0 and refusal.value.after > refusal.value.cap == 3.0
    assert not (tmp_path / "run").exists()
    created = Run.create(demo(rounds=15), tmp_path / "run")  # the name is free, and what was said to fit does
    assert [len(client.account.ledger.entries()) for client in created._parties.clients] == [0] * 5


def test_a_budget_that_lost_attempts_used_up_ends_the_run_and_says_what_would_fit(tmp_path: Path) -> None:
    """All three rounds fit when the run begins; then a crash in the first costs the charges of an attempt."""
    run = Run.create(allowing(1.25, rounds=3), tmp_path / "run")
    interrupt(run, answers=2)  # at the masked input of the fourth client, when three were charged
    with pytest.raises(KeyboardInterrupt):
        list(run.rounds())
    resumed = Run.open(tmp_path / "run")
    with pytest.raises(BudgetExceeded, match="still fit: 0"):
        list(resumed.rounds())
    assert len(resumed.history) == 2
    assert max(resumed.history[-1].epsilon.values()) <= 1.25


def test_too_few_clients_end_the_run_with_exit_code_5(tmp_path: Path) -> None:
    run = Run.create(demo(drop=("hospital-1@3:1", "hospital-2@3:1")), tmp_path / "run")
    with pytest.raises(RoundFailed, match=r"hospital-1 \(exchange 3\)") as failure:
        list(run.rounds())
    assert failure.value.exit_code == 5


def test_a_history_line_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    run = Run.create(demo(rounds=3), tmp_path / "run")
    list(itertools.islice(run.rounds(), 2))
    for name in ("history.jsonl", "transcript.jsonl"):
        with (tmp_path / "run" / name).open("ab") as file:
            file.write(b'{"round": 3, "att')
    resumed = Run.open(tmp_path / "run")
    assert [record.round for record in resumed.history] == [1, 2]
    list(resumed.rounds())
    assert [record.round for record in Run.open(tmp_path / "run").history] == [1, 2, 3]
    assert resumed.finish().rounds == 3


def test_a_loader_that_fails_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_loader.py").write_text("def load(name):\n    raise OSError('no such file')\n")
    monkeypatch.chdir(tmp_path)
    text = """
        [job]
        name = "mine"
        rounds = 1
        [data]
        loader = "broken_loader:load"
        clients = ["a", "b", "c"]
        [model]
        factory = "securefl.pilots.breast_cancer:model"
        [training]
        learning_rate = 1.0
        sampling_rate = 1.0
        steps = 1
        [privacy]
        enabled = false
    """
    (tmp_path / "job.toml").write_text(text)
    with pytest.raises(BadInput, match="no such file"):
        Run.create(job.load(tmp_path / "job.toml"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["secagg", "ckks"])
def test_a_killed_process_loses_nothing(tmp_path: Path, cell: str) -> None:
    """kill -9 at eight moments of a run; each time it is resumed, and no ledger has fewer charges than rounds."""
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "securefl.cli"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = [*command, "demo", "--protection", cell, "--rounds", "7", "--drop", "none", "--out", str(folder)]
    for attempt in range(8):
        arguments = [*command, "resume", str(folder)] if (folder / "plan.json").exists() else start
        process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None
        for line in iter(process.stdout.readline, b""):
            if line.startswith(b"round"):
                break
        time.sleep(0.07 * attempt)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        _no_ledger_under_counts(folder)
    # Seven rounds and eight lost attempts fit the budget of fifteen, so the run must reach its end.
    resume = [*command, "resume", str(folder), "--json"]
    done = subprocess.run(resume, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert msgspec.json.decode(done.stdout.splitlines()[-1], type=Summary).rounds == 7
    _no_ledger_under_counts(folder)


def _no_ledger_under_counts(folder: Path) -> None:
    """Whatever left a client, and every round that it contributed to, is in its ledger.

    A client whose budget the killed attempts used up refuses the last rounds: then it has fewer charges than others.
    """
    sent = Counter(
        crossing.client
        for crossing in map(partial(msgspec.json.decode, type=Crossing), _whole_lines(folder / "transcript.jsonl"))
        if (crossing.kind, crossing.direction) == ("masked-input", "up")
    )
    records = [msgspec.json.decode(line, type=RoundRecord) for line in _whole_lines(folder / "history.jsonl")]
    for path in ledgers(folder):
        charged = {(entry.round, entry.attempt) for entry in read(path).entries}
        assert len(charged) >= sent[path.stem]
        assert charged >= {(r.round, r.attempt) for r in records if path.stem in r.contributors}


def ledgers(folder: Path) -> list[Path]:
    """The clients' ledgers; what else a client keeps for longer than a run lies beside them."""
    return [path for path in (folder / "ledgers").glob("*.sqlite") if not path.name.endswith(".keep.sqlite")]


def _whole_lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


@pytest.mark.slow
def test_the_default_demo_keeps_its_promise_in_the_worst_of_five_runs(tmp_path: Path) -> None:
    """Runs differ in noise and sampling only. Accuracy >= 0.92 at epsilon <= 3, delta 1e-5.

    About one run in 400 falls below 0.92, so one five in 80 does: a second five is asked then, and both miss once in
    6,000.
    """
    worst = _worst_of_five(tmp_path / "first")
    assert worst >= 0.92 or _worst_of_five(tmp_path / "second") >= 0.92


def _worst_of_five(folder: Path) -> float:
    accuracies = []
    for number in range(5):
        run = Run.create(job.from_pilot("breast-cancer"), folder / str(number))
        list(run.rounds())
        summary = run.finish()
        assert summary.epsilon is not None and summary.epsilon <= 3
        assert summary.delta == 1e-5
        assert summary.accuracy is not None
        accuracies.append(summary.accuracy)
    return min(accuracies)


def test_without_privacy_the_demo_reaches_95_percent(tmp_path: Path) -> None:
    run = Run.create(job.from_pilot("breast-cancer", private=False), tmp_path / "run")
    list(run.rounds())
    summary = run.finish()
    assert summary.accuracy is not None and summary.accuracy >= 0.95
    assert summary.epsilon is None


@pytest.mark.needs_data
@pytest.mark.parametrize("cell", ["secagg", "ckks"])
def test_four_hospitals_reach_the_published_pooled_accuracy(tmp_path: Path, cell: str) -> None:
    """FLamby's Fed-Heart-Disease, no privacy: published FedAvg .748, FedAdam .779, pooled training .795."""
    run = Run.create(job.from_pilot("heart", cell, private=False), tmp_path / "run")
    list(run.rounds())
    summary = run.finish()
    assert summary.accuracy is not None and summary.accuracy >= 0.79


@pytest.mark.parametrize("cell", ["ckks", "ckks-unmasked"])
def test_a_key_lies_in_its_clients_own_store_and_nowhere_else(tmp_path: Path, cell: str) -> None:
    """Not in logs, reports, transcripts or the server's files; and only its owner may read where it lies."""
    run = Run.create(demo(cell), tmp_path / "run")
    list(run.rounds())
    run.finish()
    places = {
        client.name: tmp_path / "run" / "clients" / client.name / "store.sqlite" for client in run._parties.clients
    }
    keys = {client._keyholder(run._server.run)._held.record.key for client in run._parties.clients}
    assert len(keys) == 1
    (key,) = keys
    for needle in (key[:64], key[512:576], key[-32:]):
        holders = {path for path in (tmp_path / "run").rglob("*") if path.is_file() and needle in path.read_bytes()}
        assert holders == set(places.values())
    for path in places.values():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for client in run._parties.clients:
        assert client.errors == [] and key[:16].hex() not in repr(vars(client))
