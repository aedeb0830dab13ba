"""Runs in folders whose clients act in turn: what lies where, how they are gone on with, what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest

from securefl import cli, job, report, settings
from securefl.errors import BadInput, BadJob, NotARun
from securefl.job import Job
from securefl.peers.faults import Death
from securefl.peers.run import PeersRun, deaths, demonstration
from securefl.report import declared
from securefl.run import Run
from securefl.settings import InTurn, InTurnApart
from securefl.verification import verified


def demo(protection: str = "secagg", rounds: int = 3) -> Job:
    return demonstration(job.from_pilot("breast-cancer", protection, rounds=rounds, private=False))


@pytest.mark.parametrize("cell", ["secagg", pytest.param("ckks", marks=pytest.mark.slow)])
def test_a_run_is_stopped_gone_on_with_and_leaves_every_peer_the_whole_record(tmp_path: Path, cell: str) -> None:
    folder = tmp_path / "run"
    run = PeersRun.create(demo(cell), folder, engine=InTurn((Death("masked-input", 2, 3),)))
    first = list(itertools.islice(run.rounds(), 1))
    run.close()
    opened = PeersRun.open(folder)
    assert opened.history == first
    records = [*first, *opened.rounds()]
    summary = opened.finish()
    assert [len(record.contributors) for record in records] == [5, 4, 5]
    assert summary.rounds == 3 and summary.run == str(folder)
    for name in ("history.jsonl", "transcript.jsonl"):
        own = {(folder / "peers" / client / name).read_bytes() for client in opened.plan.clients}
        assert own == {(folder / name).read_bytes()}
    verdict = verified(folder)
    assert verdict.problems == ()
    view = summary.server_view  # whoever acted holds the clients' key, where there is one
    assert (view.updates_readable, view.sums_readable, view.models_readable) == (0, 3, 3)
    written = report.read(folder)
    assert written.aggregation.visibility.startswith(f"{cell}, without a server")
    assert written.aggregation.threat_model.startswith("Holds against a client that deviates as it acts as the server,")
    assert written.sights[0].party == "the client that acts as the server" and written.sights[0].total == "reads it"


def test_a_peer_whose_journal_was_cut_short_writes_it_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = PeersRun.create(demo(rounds=2), folder, engine=InTurn())
    list(run.rounds())
    own = folder / "peers" / "hospital-2"
    whole = {name: (own / name).read_bytes() for name in ("history.jsonl", "transcript.jsonl")}
    (own / "history.jsonl").write_bytes(whole["history.jsonl"][:-20])
    (own / "transcript.jsonl").write_bytes(whole["transcript.jsonl"][:3000])
    (folder / "history.jsonl").write_bytes(b"")
    opened = PeersRun.open(folder)
    assert [record.round for record in opened.rounds()] == [1, 2]
    assert {name: (own / name).read_bytes() for name in whole} == whole


def test_a_history_that_no_peer_settled_on_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = PeersRun.create(demo(rounds=1), folder, engine=InTurn())
    (record,) = run.rounds()
    altered = msgspec.structs.replace(record, accuracy=1.0)
    (folder / "history.jsonl").write_bytes(msgspec.json.encode(altered) + b"\n")
    with pytest.raises(NotARun, match="restore all of it from one backup"):
        list(PeersRun.open(folder).rounds())


@pytest.mark.parametrize(
    ("protection", "match"), [("secagg", "protection.colluders: 0, and whoever acts"), ("plain", "hides nothing")]
)
def test_a_job_that_promises_nothing_about_an_acting_server_is_refused(
    tmp_path: Path, protection: str, match: str
) -> None:
    with pytest.raises(BadJob, match=match):
        PeersRun.create(job.from_pilot("breast-cancer", protection, rounds=1), tmp_path / "run", engine=InTurn())
    assert not (tmp_path / "run").exists()


def test_deaths_are_named_by_exchange_and_round() -> None:
    made = demo()
    assert deaths(made, ["acting@2:3", "acting@5"]) == (Death("masked-input", 3), Death("sum", 2))
    for text in ("acting@6", "acting@2:4", "hospital-1@2"):
        with pytest.raises(BadInput, match="is not acting@EXCHANGE"):
            deaths(made, [text])


def test_the_engine_of_a_run_is_kept_with_its_deaths(tmp_path: Path) -> None:
    engine = InTurn((Death("sum", 2, 1),))
    settings.write(engine, tmp_path)
    assert settings.read(tmp_path) == engine


def test_a_run_in_turn_is_not_opened_as_one_with_a_server(tmp_path: Path) -> None:
    run = Run.create(job.from_pilot("breast-cancer", rounds=1, private=False), tmp_path / "run")
    run.close()
    with pytest.raises(BadInput, match="not a run whose clients act in turn"):
        PeersRun.open(tmp_path / "run")


def test_the_demo_shows_how_the_next_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--peers", "--rounds", "2", "--no-dp", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "hospital-2 is gone: hospital-3 acts in round 2" in said
    assert "round 2 of 2: 4 of 5 contributed" in said
    assert cli.main(["resume", str(tmp_path / "run")]) == 0


def test_peers_at_sites_are_begun_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "job.toml"
    path.write_text(demo().to_toml())
    assert cli.main(["run", str(path), "--peers", "--engine", "nvflare", "--server", str(tmp_path)]) == 2
    assert "securefl site propose" in capsys.readouterr().err


def test_the_report_of_a_run_at_sites_says_who_saw_times() -> None:
    found = declared.of_engine(InTurnApart())
    assert found.kind == "timing" and found.text.startswith("whoever acted as the server saw how long")
    assert settings.apart(InTurnApart()) and not settings.apart(InTurn())
