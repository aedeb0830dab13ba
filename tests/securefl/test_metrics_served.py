"""Figures for Prometheus, scraped as it does."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from securefl import cli
from securefl.engines.local import Silence
from securefl.errors import BadInput
from securefl.metrics import reason, served
from securefl.progress import Stage
from securefl.round import federate
from securefl.transcript import Transcript
from tests.securefl.federation import NAMES, clients, server

ROOT = Path(__file__).parents[2]


def scraped(address: str) -> dict[str, float]:
    """Each figure by its name and labels."""
    with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 our own
        lines = answer.read().decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def test_a_run_is_counted_in_rounds_attempts_bytes_and_who_was_lost() -> None:
    with served("0") as figures:
        assert figures.address.startswith("http://127.0.0.1:")
        transcript = Transcript(watcher=figures)
        records = list(federate(server(), clients(), 2, faults=[Silence("cyd", 2, 2)], transcript=transcript))
        for record in records:
            figures.completed(record)
        found = scraped(figures.address)
    assert found["securefl_rounds_completed_total"] == found["securefl_attempts_total"] == 2
    assert found["securefl_contributors"] == 4
    assert found['securefl_dropped_total{reason="silent"}'] == 1
    assert found["securefl_round_seconds"] == pytest.approx(records[-1].seconds)
    for name in NAMES:
        up, down = (f'securefl_bytes_total{{client="{name}",direction="{way}"}}' for way in ("up", "down"))
        assert found[up] == sum(record.upload_bytes[name] for record in records)
        assert found[down] == sum(record.download_bytes[name] for record in records)
    assert (found["securefl_round"], found["securefl_asked"], found["securefl_answered"]) == (2, 4, 4)
    stages = {name: value for name, value in found.items() if name.startswith("securefl_stage{")}
    assert [name for name, value in stages.items() if value] == ['securefl_stage{securefl_stage="unmask"}']


def test_an_exchange_of_an_unknown_kind_is_another() -> None:
    with served("0") as figures:
        figures.stage(Stage(1, "reply", 5, 0))
        assert scraped(figures.address)['securefl_stage{securefl_stage="other"}'] == 1


@pytest.mark.parametrize(
    ("why", "word"),
    [
        ("exchange 2", "silent"),
        ("not reached", "not reached"),
        ("refused: budget", "refused for its budget"),
        ("refused: whatever", "refused"),
        ("left out: blamed: a patient called Ada", "left out"),
        ("blamed: text", "blamed"),
        ("disputed: text", "disputed"),
        ("an answer that was not asked for", "faulty"),
    ],
)
def test_reasons_are_fixed_words_whatever_a_client_said(why: str, word: str) -> None:
    assert reason(why) == word


def test_nothing_is_served_any_more_when_the_run_is_over() -> None:
    with served("0") as figures:
        address = figures.address
    with pytest.raises(OSError):
        scraped(address)


@pytest.mark.parametrize("address", ["", "metrics", "127.0.0.1:", "127.0.0.1:70000", "-1", "9400:9401:"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(BadInput, match="write a port"), served(address):
        pass


def test_a_port_that_is_taken_is_refused_before_a_run_takes_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.toml").write_text((ROOT / "examples" / "breast_cancer.toml").read_text(), encoding="utf-8")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        arguments = ["run", str(tmp_path / "job.toml"), "--out", str(tmp_path / "run"), "--metrics", str(port)]
        assert cli.main(arguments) == 2
    assert f"--metrics: {port} cannot be served at (Address already in use)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_without_the_client_library_it_is_said_how_to_install_it() -> None:
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from securefl import metrics\n"
        "with metrics.served('0'): pass"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "MissingExtra: --metrics needs an optional package: pip install 'securefl[metrics]'" in done.stderr
