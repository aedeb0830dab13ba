"""What clients state of their ledgers, against the heads that their peers saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from securefl import report
from securefl.report import heads
from securefl.report.statement import Head, Statement
from tests.securefl.report.runs import CLIENTS, Scene

SEEN = "1d" * 32 + f"{10:016x}" + "0a" * 32  # each ledger's tenth charge, as all statements have it
FIRST, SECOND, *OTHERS = CLIENTS


def shown(said: Statement) -> Statement:
    return replace(said, witnessed={name: SEEN for name in CLIENTS if name != said.client})


def first(change: Callable[[Statement], Statement]) -> Callable[[Statement], Statement]:
    """All peers have seen the heads of all, and the first client states something else than what it would."""
    return lambda said: change(shown(said)) if said.client == FIRST else shown(said)


def statements(change: Callable[[Statement], Statement]) -> Iterator[Statement]:
    return (signed.statement for signed in Scene(change=change).statements)


# What the first client states, and what is said of it.
CHANGES: dict[str, tuple[Callable[[Statement], Statement], str]] = {
    "another ledger": (lambda said: replace(said, ledger="ab" * 32), f"{FIRST} states another ledger than"),
    "another charge": (
        lambda said: replace(said, after=Head(10, "ab" * 32)),
        f"{FIRST} states another charge 10 than {SECOND} saw",
    ),
    "no ledger": (lambda said: replace(said, ledger="none"), f"{FIRST} states charges, and not where its ledger stood"),
    "no head": (lambda said: replace(said, before="none"), f"{FIRST} states charges, and not where its ledger stood"),
    "no head of another": (
        lambda said: replace(said, witnessed=said.witnessed | {SECOND: "zz"}),
        f"{FIRST} states what is no head of the ledger of {SECOND}",
    ),
}


def test_what_honest_clients_state_of_their_ledgers_is_consistent() -> None:
    assert list(heads.contradictions(list(statements(shown)))) == []


@pytest.mark.parametrize("name", CHANGES)
def test_what_cannot_be_true_of_a_ledger_is_named(name: str) -> None:
    change, line = CHANGES[name]
    found = list(heads.contradictions(list(statements(first(change)))))
    assert any(one.startswith(line) for one in found), found


@pytest.mark.parametrize("name", CHANGES)
def test_a_report_of_ledgers_that_contradict_each_other_says_violated(tmp_path: Path, name: str) -> None:
    change, line = CHANGES[name]
    status = report.assembled(Scene(change=first(change)).write(tmp_path / "run")).status
    assert status.word == "violated"
    assert any(reason.startswith(line) for reason in status.reasons), status.reasons


def test_a_peer_that_saw_nothing_says_nothing() -> None:
    blind = list(statements(first(lambda said: replace(said, witnessed={}))))
    assert set(heads.witnessed(blind, SECOND)) == set(OTHERS)
    assert list(heads.contradictions(blind)) == []


@pytest.mark.parametrize("head", ["", "zz", "00" * 71, "00" * 73, "00" * 64 + "01" * 8, "é"])
def test_what_is_no_head_is_none(head: str) -> None:
    assert heads.decoded(head) is None
