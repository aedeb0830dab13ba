from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from benchmarks import round as subject
from benchmarks.rows import Row, table, value_row


@pytest.mark.parametrize(("value", "met"), [(4.003, True), (4.2, False)])
def test_a_value_row_meets_its_goal_from_below(value: float, met: bool) -> None:
    row = value_row("upload", value, "B", quick=True, at_most=4.05)
    assert (row.met, row.ratio, row.peer) == (met, None, None)


def test_rows_have_exactly_the_documented_keys() -> None:
    keys = ["name", "value", "unit", "peer", "peer_value", "ratio", "goal", "met", "quick"]
    assert list(msgspec.json.decode(msgspec.json.encode(value_row("x", 1.0, "B", True)))) == keys


def test_a_peer_that_did_not_run_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=120).print(table("t", [Row("work", 1.0, "s", "peer", None, None, 8.0, False, True)]))
    assert "did not run" in capsys.readouterr().out


@pytest.mark.parametrize("cell", subject.UPLOAD_GOALS)
def test_the_round_benchmark_measures_every_protection(
    cell: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(subject, "DIMENSION", 5000)
    measured = subject.one_round(cell)
    assert measured.seconds > 0
    assert set(measured.up) == set(measured.down) == {f"client-{i}" for i in range(subject.CLIENTS)}
    bytes_each = 7 if cell.startswith("ckks") else 4
    assert min(measured.up.values()) > bytes_each * 5000


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "goal"), [("secagg", 4.05), ("ckks", 7.1)])
def test_uploads_at_a_million_parameters_stay_below_their_goals(cell: str, goal: float) -> None:
    assert max(subject.one_round(cell).up.values()) / subject.DIMENSION <= goal
