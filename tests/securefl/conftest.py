"""A run folder as a finished run leaves it, written by hand: for what only reads run folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from securefl import job
from securefl.job import file
from securefl.plan import Plan
from securefl.records import RoundRecord, ServerView, Summary

JOB = """
[job]
name = "five hospitals"
rounds = 10
[data]
name = "diagnoses"
loader = "own_data:load"
clients = ["hospital-1", "hospital-2", "hospital-3", "hospital-4", "hospital-5"]
[model]
factory = "own_data:model"
[training]
learning_rate = 0.5
sampling_rate = 0.5
steps = 3
[privacy]
noise_multiplier = 4.0
epsilon = 3.0
delta = 1e-5
ledger = "ledgers"
"""
EXCHANGES = {"keys": (180, 900), "shares": (1400, 1500), "masked-input": (310, 420), "consistency": (96, 520)}


@pytest.fixture
def toml() -> str:
    """A valid job file."""
    return JOB


@pytest.fixture
def plan() -> Plan:
    return plan_of(job.checked(file.parse(JOB)))


@pytest.fixture
def records() -> list[RoundRecord]:
    """Ten rounds; hospital-3 goes silent in the third, before its masked input."""
    return [record(number) for number in range(1, 11)]


@pytest.fixture
def summary(tmp_path: Path) -> Summary:
    return Summary(
        accuracy=0.947,
        accuracy_centralised=0.974,
        epsilon=2.93,
        epsilon_by_client={f"hospital-{i}": 2.93 for i in range(1, 6)},
        budget_epsilon=3.0,
        delta=1e-5,
        rounds=10,
        protection="secagg",
        dropouts_recovered=1,
        upload_bytes=1986,
        download_bytes=3340,
        server_view=ServerView(196, 104_000, 49, 0, 10, 10),
        hazards=("scaling constants computed from these records",),
        seconds=11.2,
        run=str(tmp_path / "run"),
        model=str(tmp_path / "run" / "model.safetensors"),
        report=str(tmp_path / "run" / "report.html"),
    )


@pytest.fixture
def write_run(tmp_path: Path, records: list[RoundRecord], summary: Summary) -> Callable[..., Path]:
    """Writes the run's folder; ``rounds`` below ten leave it unfinished."""

    def write(text: str = JOB, rounds: int = 10) -> Path:
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "job.toml").write_text(text, encoding="utf-8")
        plan = plan_of(job.checked(file.parse(text)))
        (folder / "plan.json").write_bytes(plan.encoded())
        lines(folder / "history.jsonl", records[:rounds])
        lines(folder / "transcript.jsonl", transcript(rounds))
        if rounds == len(records):
            (folder / "summary.json").write_bytes(msgspec.json.encode(summary))
        return folder

    return write


def plan_of(checked: job.Job) -> Plan:
    return Plan(
        job=checked.name,
        protection=checked.protection.kind,
        clients=checked.clients,
        weights=checked.client_weights,
        bound=checked.protection.bound,
        minimum=checked.minimum,
        threshold=checked.threshold,
        mechanism=checked.mechanism,
        optimizer=checked.optimizer,
        architecture="0b" * 32,
        dimension=62,
        model_seed=checked.model.seed,
    )


def record(number: int) -> RoundRecord:
    clients = [f"hospital-{i}" for i in range(1, 6)]
    silent = number == 3
    return RoundRecord(
        round=number,
        attempt=1,
        contributors=tuple(c for c in clients if not (silent and c == "hospital-3")),
        dropped={"hospital-3": "exchange 2"} if silent else {},
        recovered=("hospital-3",) if silent else (),
        accuracy=0.6 + 0.36 * (1 - 0.7**number),
        epsilon=dict.fromkeys(clients, 0.93 * number**0.5),
        upload_bytes=dict.fromkeys(clients, 1986),
        download_bytes=dict.fromkeys(clients, 3340),
        seconds=0.41,
    )


def transcript(rounds: int) -> list[dict[str, object]]:
    return [
        {
            "round": r,
            "attempt": 1,
            "kind": kind,
            "direction": way,
            "client": f"hospital-{i}",
            "bytes": b,
            "sha256": "00",
        }
        for r in range(1, rounds + 1)
        for kind, sizes in EXCHANGES.items()
        for way, b in zip(("up", "down"), sizes, strict=True)
        for i in range(1, 6)
    ]


def lines(path: Path, values: list[RoundRecord] | list[dict[str, object]]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(value) + b"\n" for value in values))
