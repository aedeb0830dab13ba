"""Who watches a run hears all of it, whichever way it is run."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import msgspec

from securefl.progress import PRESENCE
from securefl.report import facts
from securefl.run import Run
from securefl.transcript import Crossing
from tests.securefl.test_transcript import Heard
from tests.securefl.verification import toy

ROOT = Path(__file__).parents[2]


def test_what_is_heard_of_a_run_is_what_it_writes_down(tmp_path: Path) -> None:
    heard, folder = Heard(), tmp_path / "run"
    run = Run.create(toy.job(), folder, watcher=heard)
    assert heard.stages == []
    assert list(run.rounds()) == heard.records == run.history
    written = [
        msgspec.json.decode(line, type=Crossing) for line in (folder / "transcript.jsonl").read_bytes().splitlines()
    ]
    assert heard.crossings == written
    assert [one.took is None for one in written] == [one.direction == "down" for one in written]
    assert [one.round for one in heard.stages if one.kind == PRESENCE] == [1, 2]
    both = (flow for kind in facts.traffic(folder) for flow in (kind.up, kind.down))
    assert sum(flow.count for flow in both) == len(written)


def test_a_run_that_goes_on_is_heard_from_there(tmp_path: Path) -> None:
    run = Run.create(toy.job(), tmp_path / "run")
    next(iter(run.rounds()))
    run.close()
    del run  # which lets go of the folder
    heard = Heard()
    list(Run.open(tmp_path / "run", heard).rounds())
    assert [record.round for record in heard.records] == [2]
    assert {one.round for one in heard.stages} == {2}


def test_a_run_on_the_command_line_serves_metrics_as_long_as_it_goes_on(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(toy.job(rounds=300, privacy={"epsilon": 500.0}).to_toml(), encoding="utf-8")
    command = [sys.executable, "-m", "securefl", "run", str(tmp_path / "job.toml"), "--metrics", "0"]
    command += ["--out", str(tmp_path / "run"), "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        said = iter(process.stderr)
        label, _, address = next(said).strip().partition(": ")
        assert label == "metrics" and address.startswith("http://127.0.0.1:")
        assert any(line.startswith("round 2 of 300") for line in said)
        with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 our own
            figures = answer.read().decode()
        process.terminate()
    done = next(line for line in figures.splitlines() if line.startswith("securefl_rounds_completed_total "))
    assert 2 <= float(done.split()[1]) < 300
    assert json.dumps("ada") in figures
