"""Run folders that were falsified, each in a way that a cheat would choose: what is wrong is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.falsified import FALSIFICATIONS, missed, noticed

# A mismatch that must be among those that are named, for each falsification.
NAMED = {
    "claims lowered": r"^report: owners\[0\]\.claims\[0\]\.epsilon is 0\.01 and comes to",
    "hazard removed": r"^report: hazards is",
    "status changed": r'^report: status\.word is "simulation" and comes to "private"',
    "noise in statement raised": r"^statement of ada: the signature of ada does not verify",
    "statement removed": r"^ada contributed, and there is no statement of it",
    "signatures swapped": r"^signature of bob under the report: the signature of bob does not verify",
    "signature removed": r"^ada contributed and did not sign the report",
    "statement by a stranger": r"^ledger of ada: .* is signed by \w{64}, not by \w{64}",
    "model replaced": r"^(clients/dan/)?model\.safetensors: not the model that the report names",
    "minimum in plan lowered": r"^plan\.json: not the plan that the report names",
    "budget in job raised": r"^job\.toml: the budget is epsilon 1000 .* ada states epsilon 9",
    "steps in job doubled": r"^job\.toml: gives another mechanism than plan\.json",
    "accuracy raised": r"^report: rounds\[1\]\.accuracy is .* comes to 0\.999",
    "contributor removed": r"^report: rounds\[1\]\.contributors is",
    "history emptied": r"^history\.jsonl: ada charged round 1, which is not in it",
    "rounds emptied": r"^history\.jsonl: round 1 has not 3 or more contributors",
    "page changed": r"^report\.html: does not say what privacy_report\.json says",
    "plot changed": r"^report\.html: does not say what privacy_report\.json says",
    "plot moved": r"^report\.html: a figure has transform on a g element, which no figure of a report has",
    "hazard in summary removed": r"^summary\.json: leaves out a hazard that .*engine\.json implies: all parties",
    "view in summary shrunk": r"^summary\.json: server_view is .*updates_received=0",
    "summary lowered": r"^summary\.json: the epsilon of ada is below",
    "uploads in summary halved": r"^summary\.json: upload_bytes is",
    "transcript truncated": r"^report: traffic\[\d+\]\.up\.count is",
    "ledger truncated": r"^ledger of ada: .*rolled back: it had 2 charges and now has 1",
    "ledger edited": r"^ledger of ada: .* was altered: entry 1 does not follow",
    "ledger set back": r"^ledger of ada: .*rolled back",
    "ledger made anew": r"^ledger of ada: .*another ledger",
    "together a charge is forgotten": r"^ada contributed to round 2 and did not charge it",
    "together charges have more noise": r"^ada charged something else than the plan releases",
    "together the past is forgotten": r"^ledger of ada: .*another ledger",
    "together the past is forgotten and the ledger lost": r"^ada states another ledger than bob saw",
    "together heads are left out": r"^ada states charges, and not where its ledger stood",
    "together epsilon is understated": r"^ada states epsilon 0\.01, and its charges come to",
    "together epsilon is infinite": r"^ada: epsilon infinite exceeds the budget of 9",
    "together a client is left out": r"^ledger of ada: .* is signed by \w{64}, not by \w{64}",
}


def test_every_falsification_has_a_mismatch_to_be_named() -> None:
    assert set(NAMED) == set(FALSIFICATIONS)


@pytest.mark.parametrize("name", FALSIFICATIONS)
def test_a_falsified_run_is_named(secagg: Path, name: str) -> None:
    found = noticed(secagg, name)
    assert any(re.search(NAMED[name], line) for line in found), found
    assert (
        len([line for line in found if line.startswith("ada states epsilon")]) <= 1
    )  # whoever finds it, it is said once


@pytest.mark.slow
@pytest.mark.parametrize("name", FALSIFICATIONS)
def test_a_falsified_run_under_ckks_is_named(ckks: Path, name: str) -> None:
    assert any(re.search(NAMED[name], line) for line in noticed(ckks, name)), noticed(ckks, name)


def test_one_clients_copy_of_an_encrypted_run_cannot_be_replaced(ckks: Path) -> None:
    assert noticed(ckks, "model replaced") == ("clients/dan/model.safetensors: not the model that the report names",)


def test_nothing_can_be_missed_in_a_run_that_is_not_in_order(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="there is no model"):
        missed(copy)
