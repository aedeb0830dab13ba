"""Metrics on the clients' own held-out records: measured in rounds, noised, charged, and read by who may read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from securefl import DPSGD, Client, Dataset, Server, Store, evaluation, vector
from securefl.engines.local import LocalEngine, Silence
from securefl.errors import BadInput, Refused
from securefl.plan import HeldOut, PrivacyTerms
from securefl.policy import Policy
from securefl.privacy.mechanism import Budget, NoisedSum, Training
from securefl.releases import METRICS_BOUND
from securefl.round import enrol, federate
from tests.securefl.federation import (
    CELLS,
    NAMES,
    RUN,
    TEST,
    WHOLE,
    client,
    direct,
    final_model,
    model,
    records,
    server,
)

BUDGET = Budget(3.0, 1e-5)
PRIVATE = DPSGD(noise_multiplier=4.0, sampling_rate=1.0, steps=1)
EVERY_CELL = pytest.mark.parametrize("cell", CELLS)
EXACT, QUIET = HeldOut(None), HeldOut(1e-6)
WEIGHTS = {"ada": 1.0, "bob": 0.5, "cyd": 0.25, "dan": 1.0, "eve": 1.0}
HELD_OUT = {name: records(70 + number, 20 + number) for number, name in enumerate(NAMES)}
# What a sum of five rounded values, the grid of the noise and float32 leave of six digits.
CLOSE = 1e-4


def owner_of(name: str, held_out: HeldOut, budget: Budget | None, test: bool = True) -> Client:
    if test:
        owner = client(name, budget, held_out=HELD_OUT[name])
    else:
        owner = Client(name, records(NAMES.index(name)), model, budget=budget, held_out=HELD_OUT[name], store=Store())
    owner.policy = Policy(exact_metrics=held_out.noise_multiplier is None)
    return owner


def parties(
    cell: str, held_out: HeldOut, mechanism: Training = WHOLE, budget: Budget | None = None, test: bool = True
) -> tuple[Server, list[Client]]:
    coordinator = server(cell, mechanism, weights=WEIGHTS, privacy=PrivacyTerms(held_out=held_out), rounds=4)
    owners = [owner_of(name, held_out, budget, test) for name in NAMES]
    enrol(coordinator, owners)
    coordinator.set_up(direct(owners))
    return coordinator, owners


def truth(coordinator: Server, owners: Sequence[Client], names: Sequence[str] = NAMES) -> tuple[float, float]:
    """Accuracy and loss of the model as it is now, as weighted means of the clients' means."""
    module = vector.build(model, 0)
    vector.load(module, final_model(coordinator, owners))
    found = {name: evaluation.sums(module, HELD_OUT[name], 4.0) / len(HELD_OUT[name]) for name in names}
    accuracy, loss = sum(WEIGHTS[name] * found[name] for name in names) / sum(WEIGHTS[name] for name in names)
    return accuracy, 4.0 * loss


@EVERY_CELL
@pytest.mark.parametrize("held_out", [EXACT, QUIET], ids=["exact", "noised"])
def test_a_round_measures_the_model_that_it_began_with(cell: str, held_out: HeldOut) -> None:
    coordinator, owners = parties(cell, held_out)
    readers = [coordinator] if coordinator.model() is not None else owners
    assert all(found is None for found in measured(readers))
    for _ in range(2):
        expected = truth(coordinator, owners)
        coordinator.round(direct(owners))
        for found in measured(readers):
            assert (found.accuracy, found.loss) == pytest.approx(expected, abs=CLOSE)  # type: ignore[union-attr]


def measured(readers: Sequence[Server | Client]) -> list[object]:
    return [reader.measured if isinstance(reader, Server) else reader.held(RUN).measured for reader in readers]


def test_a_server_that_cannot_read_the_model_cannot_read_the_metrics() -> None:
    coordinator, owners = parties("ckks", QUIET)
    coordinator.round(direct(owners))
    assert coordinator.measured is None


def test_who_drops_out_is_not_in_the_mean() -> None:
    coordinator, owners = parties("secagg", EXACT)
    expected = truth(coordinator, owners, NAMES[:4])
    coordinator.round(LocalEngine({owner.name: owner for owner in owners}, [Silence("eve", 2, 1)]).exchange(1))
    found = coordinator.measured
    assert found is not None
    assert (found.accuracy, found.loss) == pytest.approx(expected, abs=CLOSE)


def test_under_ckks_a_client_without_a_test_set_reports_no_accuracy() -> None:
    """What was measured on held-out records is no accuracy on a public test set, and is not called one."""
    coordinator, owners = parties("ckks", QUIET, test=False)
    assert coordinator.round(direct(owners)).accuracy is None
    assert owners[0].held(coordinator.run).measured is not None


def test_under_ckks_a_client_with_a_test_set_reports_on_that() -> None:
    coordinator, owners = parties("ckks", QUIET)
    outcome = coordinator.round(direct(owners))
    module = vector.build(model, 0)
    vector.load(module, final_model(coordinator, owners))
    assert outcome.accuracy == evaluation.accuracy(module, TEST)


@pytest.mark.parametrize("cell", ["secagg", "ckks"])
def test_a_round_s_record_has_what_it_measured(cell: str) -> None:
    coordinator, owners = parties(cell, QUIET)
    expected = truth(coordinator, owners)
    (record,) = federate(coordinator, owners, 1)
    assert record.held_out is not None
    assert (record.held_out.accuracy, record.held_out.loss) == pytest.approx(expected, abs=CLOSE)


# ---- what they cost


def test_noised_metrics_are_charged_beside_the_training() -> None:
    coordinator, owners = parties("secagg", HeldOut(20.0), PRIVATE, BUDGET)
    coordinator.round(direct(owners))
    for owner in owners:
        (entry,) = owner.account.ledger.entries()
        assert entry.releases == (PRIVATE, NoisedSum("metrics", 20.0, METRICS_BOUND))


@pytest.mark.parametrize(("held_out", "charged"), [(EXACT, 0), (QUIET, 1)])
def test_without_private_training_noised_metrics_are_charged_and_exact_ones_are_not(
    held_out: HeldOut, charged: int
) -> None:
    """Of exact ones there is nothing to charge: they are a hazard."""
    coordinator, owners = parties("secagg", held_out)
    coordinator.round(direct(owners))
    assert [len(owner.account.ledger.entries()) for owner in owners] == [charged] * 5


# ---- refused


def refusal(owner: Client, held_out: HeldOut, mechanism: Training = WHOLE) -> str:
    owners = [owner, *(owner_of(name, EXACT, owner.budget) for name in NAMES[1:])]
    roster = {each.name: each.public_key for each in owners}
    with pytest.raises(Refused) as caught:
        owner.pin(roster, server("secagg", mechanism, privacy=PrivacyTerms(held_out=held_out)).enrol(roster))
    return str(caught.value)


def test_exact_metrics_are_refused_by_an_owner_who_did_not_allow_them() -> None:
    assert "set exact_metrics in this client's policy" in refusal(client("ada", held_out=HELD_OUT["ada"]), EXACT)
    private = client("ada", BUDGET, held_out=HELD_OUT["ada"])
    assert "which no epsilon covers" in refusal(private, EXACT, PRIVATE)


def test_an_owner_with_a_budget_is_not_won_over_by_noised_metrics_of_a_model_without_privacy() -> None:
    budgeted = client("ada", BUDGET, held_out=HELD_OUT["ada"])
    assert "private jobs only" in refusal(budgeted, QUIET)


def test_a_client_without_held_out_records_refuses_to_measure() -> None:
    assert "has none: give it some" in refusal(client("ada"), QUIET)


def test_held_out_labels_that_the_model_does_not_have_are_found_before_the_run() -> None:
    wrong = Dataset(HELD_OUT["ada"].features, np.full(20, 7))
    owner = client("ada", held_out=wrong)
    others = [owner_of(name, QUIET, None) for name in NAMES[1:]]
    with pytest.raises(BadInput, match="labels must be 0 to 1"):
        enrol(server("secagg", privacy=PrivacyTerms(held_out=QUIET)), [owner, *others])
