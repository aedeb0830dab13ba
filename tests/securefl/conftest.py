"""A job file, and what a run of it reports, written by hand: for what only reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from securefl.records import RoundRecord, ServerView, Summary
from securefl.report.hazards import hazard

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


@pytest.fixture
def toml() -> str:
    """A valid job file."""
    return JOB


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
        hazards=(hazard("preprocessing", "scaling constants computed from these records"),),
        seconds=11.2,
        id="0123456789abcdef" * 2,
        model_sha256="cd" * 32,
        run=str(tmp_path / "run"),
        model=str(tmp_path / "run" / "model.safetensors"),
        report=str(tmp_path / "run" / "report.html"),
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
