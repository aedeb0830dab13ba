"""What a client states of its own side: of its ledger, its budget, and of what the others showed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from protocols.aggregation.session import Roster
from protocols.primitives import Identity
from securefl import LocalOptimizer
from securefl import report as reports
from securefl.account import Account, forgotten
from securefl.announcement import Announcement
from securefl.errors import BudgetExceeded
from securefl.plan import Plan, PrivacyTerms
from securefl.privacy import accountant
from securefl.privacy.ledger import Ledger, Owner
from securefl.privacy.mechanism import DPSGD, SGD, Budget
from securefl.releases import releases
from securefl.report.statement import Charge, Head, Statement
from securefl.run import Run
from securefl.store import Store
from securefl.testimony import statement
from securefl.verification import verified
from tests.securefl.federation import records
from tests.securefl.verification import toy

ROUND = DPSGD(noise_multiplier=4.0, sampling_rate=1.0, steps=1)
BUDGET = Budget(3.0, 1e-5)
PEER = Identity(bytes(range(32)))


def plan(mechanism: DPSGD | SGD = ROUND) -> Plan:
    return Plan(
        "toy", "secagg", ("ada", "bob", "cyd"), (1.0, 1.0, 1.0), 8.0, 3, None, 100, mechanism, LocalOptimizer(0.5),
        "0b" * 32, 22, 0, privacy=PrivacyTerms(),
    )  # fmt: skip


class Owned:
    """ada's account on a ledger file."""

    def __init__(self, folder: Path, budget: Budget | None = BUDGET, seed: int | None = None) -> None:
        self.identity = Identity.generate(os.urandom)
        self.ledger = Ledger(folder / "ada.sqlite", self.identity, Owner("ada", "toy"), budget)
        self.account = Account("ada", self.identity, self.ledger, Store(), records(0), seed)

    @property
    def roster(self) -> Roster:
        return Roster({"ada": self.identity.public, "bob": PEER.public})

    def charge(self, run: str, round: int, attempt: int = 1) -> None:
        self.ledger.charge(
            run, round, attempt, releases(plan()), self.account.fingerprint, simulated=self.account.simulated
        )

    def states(self, run: str, model: str = "unknown") -> Statement:
        return statement(self.account, run, plan(), self.roster, model)


def spent(rounds: int) -> float:
    return accountant.epsilon([ROUND] * rounds, BUDGET.delta)


def test_a_statement_has_this_runs_charges_and_what_all_charges_come_to_before_and_after(tmp_path: Path) -> None:
    owned = Owned(tmp_path)
    owned.charge("earlier", 1)
    before = owned.ledger.head()
    owned.charge("run", 1)
    owned.charge("run", 2, attempt=2)
    after = owned.ledger.head()
    owned.charge("later", 1)
    said = owned.states("run", model="ab" * 32)
    assert said.charges == (Charge(1, 1, (ROUND,)), Charge(2, 2, (ROUND,)))
    assert (said.before, said.after) == (Head(1, before.digest.hex()), Head(3, after.digest.hex()))
    assert (said.epsilon_before, said.epsilon_after) == (spent(1), spent(3))
    assert (said.run, said.client, said.data, said.unit) == ("run", "ada", "toy", "record")
    assert (said.plan, said.model) == (plan().digest().hex(), "ab" * 32)
    assert said.fingerprints == (owned.account.fingerprint.hex(),)
    assert (said.budget, said.refused, said.simulated) == (BUDGET, 0, False)
    assert owned.ledger.witness().hex().startswith(said.ledger)
    assert said.software["securefl"] != ""


def test_a_client_that_charged_nothing_states_where_its_ledger_stands(tmp_path: Path) -> None:
    owned = Owned(tmp_path)
    owned.charge("earlier", 1)
    said, now = owned.states("run"), owned.ledger.head()
    assert said.charges == said.fingerprints == ()
    assert said.before == said.after == Head(1, now.digest.hex())
    assert said.epsilon_before == said.epsilon_after == spent(1)


def test_without_a_budget_no_epsilon_is_stated_and_without_a_ledger_no_head(tmp_path: Path) -> None:
    said = Owned(tmp_path, budget=None).states("run")
    assert (said.budget, said.epsilon_before, said.epsilon_after) == ("none", "none", "none")
    identity = Identity.generate(os.urandom)
    trial = Account("ada", identity, forgotten("ada", identity, None, "record"), Store(), records(0), None)
    said = statement(trial, "run", plan(SGD(1.0, 1)), Roster({"ada": identity.public}), "unknown")
    assert (said.ledger, said.before, said.after, said.charges) == ("none", "none", "none", ())


def test_what_protects_nobody_is_stated_as_infinite(tmp_path: Path) -> None:
    owned = Owned(tmp_path, budget=None)
    useless = DPSGD(noise_multiplier=0.01, sampling_rate=1.0, steps=1)
    owned.ledger.charge("run", 1, 1, (useless,), owned.account.fingerprint, simulated=False)
    owned.ledger.budget = BUDGET
    said = owned.states("run")
    assert (said.epsilon_before, said.epsilon_after) == (0.0, "infinite")


def test_refused_rounds_are_counted_by_run(tmp_path: Path) -> None:
    owned = Owned(tmp_path, budget=Budget(spent(1), BUDGET.delta))
    owned.account.check_round(plan(), "run")
    owned.charge("run", 1)
    for _ in range(2):
        with pytest.raises(BudgetExceeded):
            owned.account.check_round(plan(), "run")
    assert (owned.states("run").refused, owned.states("another").refused) == (2, 0)


def test_a_seed_is_stated_even_where_nothing_was_charged(tmp_path: Path) -> None:
    owned = Owned(tmp_path, seed=7)
    assert owned.states("run").simulated
    owned.charge("run", 1)
    assert owned.states("run").simulated


def test_the_last_head_that_each_peer_showed_in_this_run_is_stated(tmp_path: Path) -> None:
    owned, theirs = Owned(tmp_path), Ledger(tmp_path / "bob.sqlite", PEER, Owner("bob", "toy"), BUDGET)
    assert owned.states("run").witnessed == {}
    for round in (1, 2):
        owned.account.see("run", owned.roster, {"bob": theirs.witness()})
        theirs.charge("run", round, 1, releases(plan()), bytes(32), simulated=False)
    said = owned.states("run")
    assert said.witnessed["bob"][64:80] == f"{1:016x}" and said.doubts == ()
    assert owned.states("another").witnessed == {}


def test_a_peer_whose_ledger_was_set_back_is_a_doubt_that_stays(tmp_path: Path) -> None:
    owned, path = Owned(tmp_path), tmp_path / "bob.sqlite"
    with_nothing = Ledger(path, PEER, Owner("bob", "toy"), BUDGET)
    empty = with_nothing.witness()
    with_nothing.charge("run", 1, 1, releases(plan()), bytes(32), simulated=False)
    full = with_nothing.witness()
    for shown in (empty, full, empty, full):
        owned.account.see("run", owned.roster, {"bob": shown})
    said = owned.states("run")
    assert said.doubts == ("bob: rolled back: it had 1 charges and now has 0",)
    assert said.witnessed == {"bob": full.hex()}


def test_an_announcement_is_charged_as_it_is_stated(tmp_path: Path) -> None:
    owned = Owned(tmp_path)
    owned.account.charge(Announcement("run", 1, 1, plan(), b"", b""))
    assert owned.states("run").charges == (Charge(1, 1, releases(plan())),)


def test_a_ledger_that_was_set_back_between_two_runs_is_in_all_peers_statements_and_voids_the_second(
    tmp_path: Path,
) -> None:
    """The owner restores a backup from before the first run: the ledger is consistent in itself."""
    job = toy.job(privacy={"ledger": str(tmp_path / "ledgers")}, protection={"threshold": 3})
    Run.create(job, tmp_path / "none")
    shutil.copy(tmp_path / "ledgers" / "ada.sqlite", tmp_path / "backup.sqlite")
    toy.finished(job, tmp_path / "first")
    shutil.copy(tmp_path / "backup.sqlite", tmp_path / "ledgers" / "ada.sqlite")
    second = toy.finished(job, tmp_path / "second")
    report = reports.read(second)
    doubts = {signed.statement.client: signed.statement.doubts for signed in report.statements}
    assert doubts.pop("ada") == ()
    assert all(one[0].startswith("ada: rolled back: ") for one in doubts.values())
    assert report.status.word == "violated"
    assert any(line.startswith("bob says: ada: rolled back: ") for line in verified(second).problems)
    assert any(line.startswith("ledger of ada: ") for line in verified(tmp_path / "first").problems)
