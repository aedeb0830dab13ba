from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from securefl import report as reports
from securefl.privacy.mechanism import Skellam
from securefl.report.document import Report
from securefl.report.statement import Head, Statement
from securefl.verification import heads


def changed(folder: Path, change: Callable[[Statement], Statement]) -> Report:
    """The report, if ada had stated something else."""
    report = reports.read(folder)
    own, *others = report.statements
    return replace(report, statements=(replace(own, statement=change(own.statement)), *others))


def free(said: Statement) -> Statement:
    """A charge that no accountant knows the epsilon of, at this unit."""
    release = Skellam("update", 1.0, 1.0, 14, 2)
    return replace(said, unit="client", charges=(replace(said.charges[0], releases=(*said.releases, release)),))


# What ada states, and what is said of it.
CHANGES: dict[str, tuple[Callable[[Statement], Statement], str]] = {
    "another ledger": (lambda said: replace(said, ledger="ab" * 32), "ada states another ledger than bob saw"),
    "another charge": (
        lambda said: replace(said, after=Head(1, "ab" * 32)),
        "ada states another charge 1 than bob saw",
    ),
    "no ledger": (lambda said: replace(said, ledger="none"), "ada states charges, and not where its ledger stood"),
    "no head": (lambda said: replace(said, before="none"), "ada states charges, and not where its ledger stood"),
    "no epsilon": (
        lambda said: replace(said, epsilon_after="unknown"),
        "ada states a budget, and not what was spent of it",
    ),
    "less than before": (
        lambda said: replace(said, epsilon_before=5.0),
        "ada states epsilon 1.35647, and its charges come to 5 or more",
    ),
    "less than infinity": (
        lambda said: replace(said, epsilon_before="infinite"),
        "ada states epsilon 1.35647, and its charges come to inf or more",
    ),
    "what has no epsilon": (free, "ada: the charges have no epsilon"),
    "no head of another": (
        lambda said: replace(said, witnessed=said.witnessed | {"bob": "zz"}),
        "ada states what is no head of the ledger of bob",
    ),
}


def test_what_honest_clients_state_of_their_ledgers_is_consistent(secagg: Path, ckks: Path) -> None:
    for folder in (secagg, ckks):
        assert list(heads.mismatches(reports.read(folder))) == []


@pytest.mark.parametrize("name", CHANGES)
def test_what_cannot_be_true_of_a_ledger_is_named(secagg: Path, name: str) -> None:
    change, line = CHANGES[name]
    found = list(heads.mismatches(changed(secagg, change)))
    assert any(one.startswith(line) for one in found), found


def test_a_peer_that_saw_nothing_says_nothing(secagg: Path) -> None:
    report = changed(secagg, lambda said: replace(said, witnessed={}))
    assert set(heads.witnessed(report, "bob")) == {"cyd", "dan"}
    assert list(heads.mismatches(report)) == []


@pytest.mark.parametrize("head", ["", "zz", "00" * 71, "00" * 73, "00" * 64 + "01" * 8, "é"])
def test_what_is_no_head_is_none(head: str) -> None:
    assert heads.decoded(head) is None
