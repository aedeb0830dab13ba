from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from protocols.aggregation.messages import Envelope, KeysRequest, Refusal
from protocols.wire import decode, encode, kind
from securefl import DPSGD, SGD, Client, Dataset, Ledger, Store
from securefl.announcement import Announcement, public_tag
from securefl.plan import Plan
from securefl.privacy.mechanism import Budget
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
    owners[0].pin(roster)
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
        ({"weights": (1.0, 1.0, 1.0, 1.0, 0.0)}, "weights"),
        ({"weights": (1.0, 1.0)}, "weights"),
        ({"mechanism": PRIVATE}, "no privacy budget"),
    ],
)
def test_what_the_owner_did_not_allow_is_refused(values: dict[str, object], reason: str) -> None:
    owner, plan = pinned()
    word, why = refused(owner, opening(changed(plan, **values)))
    assert word == "policy"
    assert reason in why


def test_an_owner_with_a_budget_takes_part_in_private_jobs_only() -> None:
    owner, plan = pinned(BUDGET, WHOLE)
    assert refused(owner, opening(plan))[0] == "policy"


def test_a_client_without_a_roster_refuses() -> None:
    owner = client("ada")
    _, plan = pinned()
    assert refused(owner, opening(plan)) == ("policy", "this client has no roster: pin one before it takes part")


def test_a_spent_budget_is_refused_before_any_key_goes_out() -> None:
    owner, plan = pinned(Budget(0.1, 1e-5), PRIVATE)
    word, why = refused(owner, opening(plan))
    assert word == "budget"
    assert "spent epsilon 0.000" in why
    assert "the cap is 0.100" in why


@pytest.mark.parametrize(("round", "attempt"), [(1, 1), (0, 9)])
def test_an_attempt_is_joined_once_even_after_a_restart(tmp_path: Path, round: int, attempt: int) -> None:
    owner, plan = pinned(folder=tmp_path)
    owner.handle(opening(plan))
    restarted = client("ada", folder=tmp_path)
    restarted.pin({name: key for name, key in zip(NAMES, _keys(tmp_path), strict=True)})
    assert restarted.public_key == owner.public_key
    assert refused(restarted, opening(plan, round=round, attempt=attempt))[0] == "policy"


def _keys(folder: Path) -> list[bytes]:
    return [client(name, folder=folder).public_key for name in NAMES]


@pytest.mark.parametrize("vector", [b"", bytes(4 * 21), np.full(22, np.nan, "<f4").tobytes()])
def test_a_model_of_the_wrong_size_or_with_nan_is_refused(vector: bytes) -> None:
    owner, plan = pinned()
    assert refused(owner, opening(plan, vector))[0] == "protocol"


def test_the_ledger_is_charged_before_training_starts(tmp_path: Path) -> None:
    """Training fails here; the charge must stand all the same."""
    features = np.full((40, 10), 1e30, np.float32)
    ledger = Ledger(":memory:", "ada", BUDGET)

    class Explodes(nn.Linear):
        def forward(self, x):  # type: ignore[no-untyped-def]
            charged.append(len(ledger.entries()))
            return super().forward(x)

    charged: list[int] = []
    broken = Client(
        "ada", Dataset(features, np.zeros(40, np.int64)), lambda: Explodes(10, 2), budget=BUDGET, ledger=ledger
    )
    owners = [broken, *clients(NAMES[1:], BUDGET)]
    coordinator = server(mechanism=DPSGD(noise_multiplier=4.0, sampling_rate=1.0, steps=1))
    from securefl.round import enrol

    enrol(coordinator, owners)
    coordinator.round(direct(owners))
    assert charged and min(charged) == 1
    assert len(ledger.entries()) == 1


def test_code_of_the_owner_that_fails_is_a_refusal_and_its_text_stays_at_home() -> None:
    def broken() -> nn.Module:
        raise RuntimeError("patient 4711")

    coordinator, owners = enrolled()
    owners[0]._model = broken  # what the owner installed breaks after enrolment
    outcome = coordinator.round(direct(owners))
    assert outcome.dropped == {"ada": "refused: failed"}
    assert "patient 4711" in owners[0].errors[-1]


def test_an_update_with_nan_is_a_dropout_and_the_others_go_on() -> None:
    coordinator, owners = enrolled(mechanism=SGD(1.0, 40))
    big = np.full((40, 10), 3e37, np.float32)
    owners[1]._data = Dataset(big, np.arange(40) % 2)
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
    assert decode(reply, Refusal).reason in ("protocol", "policy", "behind", "failed")
    assert "Traceback" not in ANY.errors[-1]


ANY = Client("ada", records(0), model, store=Store())


def test_secrets_are_not_in_a_client_s_text() -> None:
    owner, _ = pinned()
    assert owner._identity.secret.hex() not in repr(owner._identity)
    assert repr(owner._identity.secret) not in repr(owner._identity)
