"""One owner's account: an identity that stays, a ledger that is its own, and refusals that are counted."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from protocols.aggregation.session import Roster
from protocols.primitives import Identity
from securefl import DPSGD, Client, Dataset, Ledger, Store
from securefl.account import Account, forgotten, load_identity
from securefl.announcement import Announcement
from securefl.errors import BadInput, BudgetExceeded, LedgerError, Refused
from securefl.plan import ClientLevel, Plan, PrivacyTerms
from securefl.privacy.ledger import Owner, Witness, read
from securefl.privacy.mechanism import SGD, Budget
from securefl.privacy.simulation import seeded
from securefl.releases import releases
from tests.securefl.federation import model, records
from tests.securefl.test_plan import plan

BUDGET = Budget(3.0, 1e-5)
OWNER = Owner("ada", "toy")
# One round of it is within the budget, a hundred are not; without sampling that takes no time to find out.
PRIVATE = plan(mechanism=DPSGD(noise_multiplier=4.0, sampling_rate=1.0, steps=1))
COSTLY = plan(mechanism=DPSGD(noise_multiplier=0.5, sampling_rate=1.0, steps=1))


def account(
    ledger: Ledger | None = None,
    keep: Store | None = None,
    data: Dataset | None = None,
    seed: int | None = None,
    budget: Budget | None = BUDGET,
) -> Account:
    keep = keep or Store()
    identity = load_identity(keep)
    return Account(
        "ada", identity, ledger or forgotten("ada", identity, budget, "record"), keep, data or records(0), seed
    )


def announced(chosen: Plan, round: int = 1, attempt: int = 1) -> Announcement:
    return Announcement("run", round, attempt, chosen, b"", b"")


# ---- identity


def test_an_identity_is_made_once_and_kept(tmp_path: Path) -> None:
    first = load_identity(Store(tmp_path / "keep"))
    assert load_identity(Store(tmp_path / "keep")).public == first.public
    assert load_identity(Store()).public != first.public


def test_an_identity_is_made_from_the_given_randomness() -> None:
    made = [load_identity(Store(), lambda count: bytes(range(count))).public for _ in range(2)]
    assert made[0] == made[1]


def test_a_client_keeps_identity_and_witnesses_where_it_is_told_to(tmp_path: Path) -> None:
    """A run's own store ends with the run; who the owner is does not."""
    keys = set()
    for run in ("one", "two"):
        keep, store = Store(tmp_path / "keep"), Store(tmp_path / run)
        keys.add(Client("ada", records(0), model, store=store, keep=keep).public_key)
        assert store.get("identity") is None
    assert len(keys) == 1


# ---- the ledger


@pytest.mark.parametrize("name", ["ada", "bob"])
def test_a_ledger_of_another_client_or_identity_is_refused(name: str) -> None:
    """Its signatures would not be this client's, or it counts what another released."""
    identity, stranger = Identity.generate(os.urandom), Identity.generate(os.urandom)
    other = Ledger(":memory:", stranger if name == "ada" else identity, Owner(name, "toy"), BUDGET)
    with pytest.raises(BadInput, match="another client or identity: open it with the same"):
        Account("ada", identity, other, Store(), records(0), None)
    with pytest.raises(BadInput, match="another client or identity"):
        Client("ada", records(0), model, budget=BUDGET, ledger=other)


@pytest.mark.parametrize("budget", [None, Budget(9.0, 1e-5), Budget(3.0, 1e-6)])
def test_a_ledger_that_was_opened_for_another_budget_is_refused(budget: Budget | None) -> None:
    """It would be that budget that is enforced, and not the owner's."""
    store = Store()
    ledger = Ledger(":memory:", load_identity(store), OWNER, budget)
    with pytest.raises(BadInput, match="another budget"):
        Client("ada", records(0), model, budget=BUDGET, ledger=ledger, store=store)


def test_a_ledger_in_memory_is_shown_to_nobody_and_one_in_a_file_is(tmp_path: Path) -> None:
    """The first ends with the process: to show it would have every restart look like a rollback."""
    assert account().shown() == b""
    keep = Store()
    ledger = Ledger(tmp_path / "ada.ledger", load_identity(keep), OWNER, BUDGET)
    kept = account(ledger, keep)
    assert Witness.decoded(kept.shown()).head.sequence == 0
    kept.charge(announced(PRIVATE))
    assert Witness.decoded(kept.shown()).head.sequence == 1


# ---- charges


def test_a_charge_says_what_is_released_of_which_data_and_is_on_disk_at_once(tmp_path: Path) -> None:
    keep = Store()
    found = account(Ledger(tmp_path / "ada.ledger", load_identity(keep), OWNER, BUDGET), keep)
    found.charge(announced(PRIVATE, 3, 2))
    (entry,) = read(tmp_path / "ada.ledger").entries
    assert (entry.run, entry.round, entry.attempt, entry.simulated) == ("run", 3, 2, False)
    assert entry.releases == releases(PRIVATE)
    assert entry.fingerprint == found.fingerprint


def test_an_attempt_is_charged_once() -> None:
    """Else a server that has it answered twice would get two updates for one charge."""
    found = account()
    found.charge(announced(PRIVATE))
    with pytest.raises(LedgerError, match="was charged before"):
        found.charge(announced(PRIVATE))


def test_what_releases_nothing_is_not_charged() -> None:
    found = account(budget=None)
    found.charge(announced(plan(mechanism=SGD(1.0, 1))))
    assert found.ledger.entries() == ()


def test_the_fingerprint_is_that_of_the_records_under_the_owner_s_own_key() -> None:
    keep = Store()
    same = [account(keep=keep), account(keep=keep)]
    other = account(keep=keep, data=records(1))
    stranger = account()
    assert len({each.fingerprint for each in same}) == 1
    assert len({same[0].fingerprint, other.fingerprint, stranger.fingerprint}) == 3


# ---- the budget


@pytest.mark.attack("a plan that hides records, on a ledger of patients who have several")
def test_a_ledger_of_patients_or_clients_is_not_charged_what_hides_a_record() -> None:
    identity = load_identity(Store())
    for unit in ("patient", "client"):
        coarse = Account("ada", identity, forgotten("ada", identity, BUDGET, unit), Store(), records(0), None)
        with pytest.raises(Refused, match=f"what each {unit} was charged, and the plan hides each record"):
            coarse.check(PRIVATE, 1)
    patients = Account("ada", identity, forgotten("ada", identity, BUDGET, "patient"), Store(), records(0), None)
    patients.check(replace(PRIVATE, privacy=PrivacyTerms(unit="patient")), 1)
    account().check(replace(PRIVATE, privacy=PrivacyTerms(unit="patient")), 1)


def test_more_rounds_than_fit_are_refused_before_the_first_and_nothing_is_charged() -> None:
    found = account()
    found.check(PRIVATE, 1)
    with pytest.raises(BudgetExceeded, match="rounds like this one that still fit"):
        found.check(PRIVATE, 100)
    assert found.ledger.entries() == ()


@pytest.mark.parametrize("runs", [("run",), ("run", "other", "third")], ids=["one run", "runs that the server names"])
def test_a_plan_is_charged_for_twice_its_rounds_at_most(runs: tuple[str, ...]) -> None:
    found, chosen = account(budget=None), replace(PRIVATE, rounds=3)
    found.accept(chosen, 3)
    for attempt in range(6):
        run = runs[attempt % len(runs)]
        found.check_round(chosen, run)
        found.charge(replace(announced(chosen, attempt=attempt + 1), run=run))
    with pytest.raises(Refused, match="this plan of 3 rounds 6 attempts were charged"):
        found.check_round(chosen, runs[0])
    found.accept(chosen, 3)  # the owner's word again
    if len(runs) > 1:
        found.check_round(chosen, runs[0])
    else:
        with pytest.raises(Refused):
            found.check_round(chosen, "run")


def test_what_other_runs_charge_to_the_same_ledger_counts_for_their_plans_only() -> None:
    found, chosen = account(budget=None), replace(PRIVATE, rounds=2)
    found.accept(chosen, 2)
    for attempt in range(9):  # another client object of the same owner, with the same ledger
        found.ledger.charge("other", 1, attempt + 1, releases(chosen), found.fingerprint, simulated=False)
    for attempt in range(5):  # twice its rounds, and a crash
        found.check_round(chosen, "run")
        found.charge(replace(announced(chosen, attempt=attempt + 1), run="run"))
    with pytest.raises(Refused, match="this plan of 2 rounds 5 attempts"):
        found.check_round(chosen, "run")


def test_refused_rounds_are_counted_for_each_run_and_outlive_the_process(tmp_path: Path) -> None:
    keep = Store(tmp_path / "keep")
    found = account(keep=keep)
    assert found.refusals("one") == 0
    for run in ("one", "one", "two"):
        with pytest.raises(BudgetExceeded):
            found.check_round(COSTLY, run)
    found.check_round(PRIVATE, "one")
    again = account(keep=Store(tmp_path / "keep"))
    assert [again.refusals(run) for run in ("one", "two", "three")] == [2, 1, 0]


def test_a_plan_that_is_asked_about_in_advance_is_no_refused_round() -> None:
    found = account()
    with pytest.raises(BudgetExceeded):
        found.check(COSTLY, 1)
    assert found.refusals("run") == 0


def test_a_charge_that_does_not_fit_is_refused_even_if_nobody_asked_before() -> None:
    found = account()
    with pytest.raises(BudgetExceeded):
        found.charge(announced(COSTLY))
    assert found.ledger.entries() == ()


def test_without_a_budget_nothing_is_refused_and_everything_is_charged() -> None:
    found = account(budget=None)
    found.check(COSTLY, 1000)
    found.check_round(COSTLY, "run")
    found.charge(announced(COSTLY))
    assert len(found.ledger.entries()) == 1
    assert found.refusals("run") == 0


def test_client_level_noise_is_charged_for_a_client_at_the_unit_of_the_ledger() -> None:
    """Of a record, the same sum tells as if there were two clients: from one update to another, not to none."""
    level = plan(
        protection="secagg", weights=(1.0,) * 3, bound=1.0, privacy=PrivacyTerms(ClientLevel(8.0, 1.0), unit="client")
    )
    spent = []
    for unit in ("client", "record"):
        keep = Store()
        owner = Owner("ada", "toy", unit)
        found = account(Ledger(":memory:", load_identity(keep), owner, BUDGET), keep)
        found.charge(announced(level))
        spent.append(found.ledger.epsilon())
    assert spent[0] < spent[1] < 3 * spent[0]


# ---- randomness


def test_without_a_seed_noise_comes_from_the_operating_system() -> None:
    found = account()
    assert not found.simulated
    assert found.random(announced(PRIVATE), "noise") is os.urandom


def test_with_a_seed_no_two_attempts_purposes_or_clients_share_noise() -> None:
    found = account(seed=1)
    assert found.simulated
    drawn = [
        found.random(announced(PRIVATE, round, attempt), purpose)(16)
        for round in (1, 2)
        for attempt in (1, 2)
        for purpose in ("training", "noise")
    ]
    drawn += [seeded(1, "bob", 1, 1, "noise")(16), account(seed=2).random(announced(PRIVATE), "noise")(16)]
    assert len(set(drawn)) == len(drawn)
    assert found.random(announced(PRIVATE), "noise")(16) == account(seed=1).random(announced(PRIVATE), "noise")(16)


def test_a_seed_is_for_plans_that_say_so() -> None:
    simulated = plan(privacy=PrivacyTerms(simulated=True))
    for chosen in (PRIVATE, simulated):
        account().check_simulated(chosen)
    account(seed=0).check_simulated(simulated)
    with pytest.raises(Refused, match="give it no seed"):
        account(seed=0).check_simulated(PRIVATE)


def test_the_seed_zero_is_a_seed() -> None:
    assert account(seed=0).simulated


# ---- others' ledgers


def test_what_is_wrong_with_others_heads_is_said_in_words_and_stops_nothing(tmp_path: Path) -> None:
    keep, bob = Store(), Identity.generate(os.urandom)
    found = account(keep=keep)
    roster = Roster({"ada": load_identity(keep).public, "bob": bob.public})
    ledger = Ledger(tmp_path / "bob.ledger", bob, Owner("bob", "toy"), None)
    old = ledger.witness()
    ledger.charge("run", 1, 1, releases(PRIVATE), bytes(32), simulated=False)
    assert found.see("run", roster, {"bob": ledger.witness()}) == []
    (wrong,) = found.see("run", roster, {"bob": old})
    assert "the ledger of bob" in wrong and "rolled back: it had 1 charges and now has 0" in wrong
    seen = found.witnesses.of("run", bob.public)
    assert seen is not None and seen.head == ledger.witness() and "rolled back" in seen.contradiction


def test_records_that_differ_by_one_value_have_other_fingerprints() -> None:
    keep, changed = Store(), records(0)
    features = changed.features.copy()
    features[3, 4] += np.float32(1e-6)
    other = account(keep=keep, data=Dataset(features, changed.labels))
    assert other.fingerprint != account(keep=keep).fingerprint
