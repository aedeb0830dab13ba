from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from protocols.aggregation.messages import Envelope, KeysRequest, Refusal
from protocols.wire import decode, encode, kind
from securefl import DPSGD, SGD, Client, Dataset, Ledger, Store
from securefl.account import load_identity
from securefl.announcement import Announcement, public_tag
from securefl.errors import BadInput, Refused
from securefl.plan import Plan
from securefl.privacy.ledger import Owner
from securefl.privacy.mechanism import Budget
from securefl.round import enrol
from tests.securefl.federation import NAMES, WHOLE, client, clients, direct, enrolled, model, records, server

BUDGET = Budget(epsilon=3.0, delta=1e-5)
PRIVATE = DPSGD(noise_multiplier=4.0, sampling_rate=0.5, steps=3)


def opening(plan: Plan, vector: bytes | None = None, round: int = 1, attempt: int = 1) -> bytes:
    weights = np.zeros(plan.dimension, "<f4").tobytes() if vector is None else vector
    announced = Announcement("run", round, attempt, plan, weights, public_tag(weights))
    return encode(KeysRequest(announced.encoded()))


def pinned(
    budget: Budget | None = None, mechanism: DPSGD | SGD = WHOLE, folder: Path | None = None
) -> tuple[Client, Plan]:
    owners = clients(budget=budget, folder=folder)
    roster = {owner.name: owner.public_key for owner in owners}
    plan = server(mechanism=mechanism).enrol(roster)
    owners[0].pin(roster, plan)
    return owners[0], plan


def refused(owner: Client, request: bytes) -> tuple[str, str]:
    """The word that went out, and the reason that stayed at home."""
    return decode(owner.handle(request), Refusal).reason, owner.errors[-1]


def changed(plan: Plan, **values: object) -> Plan:
    import msgspec

    return msgspec.structs.replace(plan, **values)  # type: ignore[return-value]


def test_a_client_answers_what_its_owner_allows() -> None:
    owner, plan = pinned()
    assert kind(owner.handle(opening(plan))) == Envelope.KIND


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"architecture": "00"}, "not the architecture"),
        ({"dimension": 21}, "not the architecture"),
        ({"clients": ("ada", "bob", "cyd"), "weights": (1.0, 1.0, 1.0)}, "other clients"),
        ({"clients": ("ada", "ada", "bob", "cyd", "eve")}, "other clients"),
        ({"weights": (1.0, 1.0, 1.0, 1.0, 0.0)}, "weights"),
        ({"weights": (1.0, 1.0, 1.0, 1.0, 1.5)}, "weights"),
        ({"weights": (1.0, 1.0)}, "weights"),
        ({"mechanism": PRIVATE}, "no privacy budget"),
    ],
)
def test_an_owner_cannot_accept_what_contradicts_its_own_settings(values: dict[str, object], reason: str) -> None:
    owner, plan = pinned()
    with pytest.raises(Refused, match=reason):
        owner.pin(
            {name: client(name).public_key for name in NAMES} | {"ada": owner.public_key}, changed(plan, **values)
        )


@pytest.mark.parametrize(
    "values",
    [
        {"protection": "plain"},
        {"weights": (1.0, 1e-9, 1e-9, 1e-9, 1e-9)},
        {"minimum": 3},
        {"bound": 9.0},
        {"mechanism": SGD(1.0, 3)},
        {"model_seed": 1},
    ],
)
def test_a_plan_that_the_owner_did_not_accept_is_refused_also_in_the_middle_of_a_run(values: dict[str, object]) -> None:
    """Without this, a server turns secagg into plain in round 2, or weighs all clients but one to nothing."""
    owner, plan = pinned()
    assert kind(owner.handle(opening(plan))) == Envelope.KIND
    word, why = refused(owner, opening(changed(plan, **values), round=2))
    assert word == "policy"
    assert why.startswith(f"the announced plan is not the one that this owner accepted: {next(iter(values))} is ")


def test_an_owner_with_a_budget_takes_part_in_private_jobs_only() -> None:
    with pytest.raises(Refused, match="differentially private jobs only"):
        pinned(BUDGET, WHOLE)


def test_a_client_that_accepted_nothing_refuses() -> None:
    _, plan = pinned()
    word, why = refused(client("ada"), opening(plan))
    assert word == "policy"
    assert "accepted no roster and plan" in why


@pytest.mark.parametrize("budget", [None, Budget(9.0, 1e-5)])
def test_a_ledger_of_another_budget_is_refused(budget: Budget | None) -> None:
    """Otherwise it is that ledger's budget that is enforced, and not the owner's."""
    store = Store()
    ledger = Ledger(":memory:", load_identity(store), Owner("ada", "toy"), budget)
    with pytest.raises(BadInput, match="another budget"):
        Client("ada", records(0), model, budget=BUDGET, ledger=ledger, store=store)


@pytest.mark.parametrize(("name", "own"), [("bob", True), ("ada", False)])
def test_a_ledger_of_another_owner_or_identity_is_refused(name: str, own: bool) -> None:
    """Otherwise the charges are signed by a key that nobody has pinned as this client's."""
    store = Store()
    ledger = Ledger(":memory:", load_identity(store if own else Store()), Owner(name, "toy"), BUDGET)
    with pytest.raises(BadInput, match="another client or identity"):
        Client("ada", records(0), model, budget=BUDGET, ledger=ledger, store=store)


def test_every_training_reads_fresh_randomness() -> None:
    """The same round twice from the same model: private updates must differ."""
    models = []
    for _ in range(2):
        coordinator, owners = enrolled(mechanism=PRIVATE, budget=Budget(9.0, 1e-5))
        coordinator.round(direct(owners))
        models.append(coordinator.model())
    assert models[0] is not None and models[1] is not None
    assert models[0].tobytes() != models[1].tobytes()


def test_a_spent_budget_is_refused_before_any_key_goes_out() -> None:
    owner, plan = pinned(Budget(0.1, 1e-5), PRIVATE)
    word, why = refused(owner, opening(plan))
    assert word == "budget"
    assert "spent epsilon 0.000" in why
    assert "the cap is 0.100" in why


@pytest.mark.parametrize(("round", "attempt"), [(2, 1), (1, 9)])
def test_an_attempt_is_joined_once_even_after_a_restart(tmp_path: Path, round: int, attempt: int) -> None:
    owner, plan = pinned(folder=tmp_path)
    owner.handle(opening(plan, round=2))
    restarted = client("ada", folder=tmp_path)
    restarted.pin(dict(zip(NAMES, _keys(tmp_path), strict=True)), plan)
    assert restarted.public_key == owner.public_key
    word, why = refused(restarted, opening(plan, round=round, attempt=attempt))
    assert word == "spent"
    assert "is not after round 2, attempt 1" in why


def _keys(folder: Path) -> list[bytes]:
    return [client(name, folder=folder).public_key for name in NAMES]


@pytest.mark.parametrize("vector", [b"", bytes(4 * 21), np.full(22, np.nan, "<f4").tobytes()])
def test_a_model_of_the_wrong_size_or_with_nan_is_refused(vector: bytes) -> None:
    owner, plan = pinned()
    assert refused(owner, opening(plan, vector))[0] == "protocol"


def test_the_ledger_is_charged_before_training_starts(tmp_path: Path) -> None:
    """Every forward pass of training sees the charge in the ledger already."""
    store = Store()
    ledger = Ledger(":memory:", load_identity(store), Owner("ada", "toy"), BUDGET)

    class Watched(nn.Linear):
        def forward(self, x):  # type: ignore[no-untyped-def]
            if self.training:
                charged.append(len(ledger.entries()))
            return super().forward(x)

    charged: list[int] = []
    broken = Client("ada", records(0), lambda: Watched(10, 2), budget=BUDGET, ledger=ledger, store=store)
    owners = [broken, *clients(NAMES[1:], BUDGET)]
    coordinator = server(mechanism=DPSGD(noise_multiplier=4.0, sampling_rate=1.0, steps=1))
    enrol(coordinator, owners)
    coordinator.round(direct(owners))
    assert charged and min(charged) == 1
    assert len(ledger.entries()) == 1


def test_code_of_the_owner_that_fails_is_a_refusal_and_its_text_stays_at_home() -> None:
    def broken() -> nn.Module:
        raise RuntimeError("patient 4711")

    coordinator, owners = enrolled()
    owners[0]._material = replace(owners[0]._material, model=broken)  # what the owner installed breaks after enrolment
    outcome = coordinator.round(direct(owners))
    assert outcome.dropped == {"ada": "refused: failed"}
    assert "patient 4711" in owners[0].errors[-1]


def test_an_update_with_nan_is_a_dropout_and_the_others_go_on() -> None:
    coordinator, owners = enrolled(mechanism=SGD(1.0, 40))
    big = np.full((40, 10), 3e37, np.float32)
    owners[1]._material = replace(owners[1]._material, data=Dataset(big, np.arange(40) % 2))
    outcome = coordinator.round(direct(owners))
    assert outcome.dropped == {"bob": "refused: failed"}
    assert "NaN or infinity" in owners[1].errors[-1]
    assert outcome.contributors == ("ada", "cyd", "dan", "eve")


@given(
    st.binary(max_size=300)
    | st.tuples(st.integers(0, 40), st.binary(max_size=200)).map(lambda p: b"SF\x01" + bytes([p[0]]) + p[1])
)
def test_any_bytes_get_a_refusal_of_one_fixed_word(data: bytes) -> None:
    reply = ANY.handle(data)
    assert decode(reply, Refusal).reason in ("protocol", "policy", "behind", "spent", "failed")
    assert "Traceback" not in ANY.errors[-1]


ANY = Client("ada", records(0), model, store=Store())


def test_secrets_are_not_in_a_client_s_text() -> None:
    owner, _ = pinned()
    for text in (repr(owner), repr(owner._identity), str(vars(owner))):
        assert owner._identity.secret.hex() not in text
        assert repr(owner._identity.secret) not in text
