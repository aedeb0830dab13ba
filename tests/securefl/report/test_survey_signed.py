"""Under CKKS clients alone read what a survey counted: they sign it, all the same, and the report has it from them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from securefl import report, survey
from securefl.records import Summary
from securefl.report import facts
from securefl.report.document import Report
from securefl.report.statement import Statement, sign
from securefl.report.surveyed import Surveyed
from securefl.run_folder import SUMMARY
from tests.securefl.report.runs import IDENTITIES, SURVEYED, Scene
from tests.securefl.verification import toy

CKKS = f'{SURVEYED}[protection]\nkind = "ckks"\n'
COUNTS = tuple(float(number) for number in range(20))  # of 4 classes: 3 models, and scores of both classes


def counted(*others: str, counts: tuple[float, ...] = COUNTS) -> Scene:
    """All clients state the counts; ``others`` state other ones."""

    def said(statement: Statement) -> Statement:
        first = counts[0] + (statement.client in others)
        return replace(statement, surveyed=(first, *counts[1:]))

    return Scene(CKKS, change=said)


def assembled(scene: Scene, folder: Path, told: bool = True) -> Report:
    """The report of a scene whose summary has what clients stated, if it was ``told``."""
    scene.write(folder)
    if told:
        summary = msgspec.json.decode((folder / SUMMARY).read_bytes(), type=Summary)
        found = survey.found(scene.plan, COUNTS, 5)
        (folder / SUMMARY).write_bytes(msgspec.json.encode(replace(summary, survey=found)))
    return report.assembled(folder)


def test_what_all_clients_signed_is_in_the_report(tmp_path: Path) -> None:
    made = assembled(counted(), tmp_path / "run")
    assert made.status.word == "private"
    assert isinstance(made.utility.survey, Surveyed)
    expected = survey.found(Scene(CKKS).plan, COUNTS, 5)
    assert made.utility.survey.local.counts == expected.spread["local"].counts
    assert made.utility.survey.auc == expected.auc
    assert "noised counts that clients report" in made.sights[0].besides


@pytest.mark.parametrize(
    ("scene", "told", "reason"),
    [
        (counted("hospital-4"), False, "hospital-4 states other counts of the survey than hospital-1"),
        (counted(), False, "the summary's survey is not the one that clients signed"),
        (counted(counts=(1.0, 2.0)), False, "hospital-1 states counts of a survey that the plan cannot have led to"),
        (counted(counts=(1e300, *COUNTS[1:])), False, "hospital-1 states counts of a survey that the plan cannot"),
        (Scene(CKKS), True, "the summary has a survey that no client signed, and only clients can have read it"),
        (counted(counts=(7.0, *COUNTS[1:])), True, "the summary's survey is not the one that clients signed"),
    ],
)
def test_whoever_says_otherwise_is_named(tmp_path: Path, scene: Scene, told: bool, reason: str) -> None:
    made = assembled(scene, tmp_path / "run", told)
    assert made.status.word == "violated"
    assert any(reason in said for said in made.status.reasons)


def test_where_the_coordinator_reads_the_counts_no_client_has_any(tmp_path: Path) -> None:
    made = assembled(Scene(SURVEYED, change=counted().change), tmp_path / "run", told=False)
    assert made.status.word == "violated"
    assert made.utility.survey == "unknown"


def test_a_statement_without_counts_is_as_it_was_before_there_were_any() -> None:
    (said, *_) = Scene().statements
    assert b"surveyed" not in msgspec.json.encode(said)
    assert sign(said.statement, IDENTITIES["hospital-1"]) == said


@pytest.mark.parametrize("kind", ["secagg", "ckks"])
def test_clients_of_a_real_run_state_what_they_alone_can_read(tmp_path: Path, kind: str) -> None:
    folder = toy.finished(toy.job(kind, survey={"noise_multiplier": 3.0, "bins": 3}), tmp_path / "run")
    found = facts.read(folder)
    stated = {one.statement.surveyed for one in found.statements}
    assert [len(counts) for counts in stated] == [9 if kind == "ckks" else 0]
    assert found.summary is not None and found.summary.survey is not None
    made = report.read(folder)
    assert isinstance(made.utility.survey, Surveyed)
    assert made.utility.survey.federated.counts == found.summary.survey.spread["federated"].counts
    assert made.status.word == "private"
