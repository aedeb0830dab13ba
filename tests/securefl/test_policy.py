"""What an owner did not allow is refused, whatever a server says; the server hears one word."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.aggregation.messages import Envelope, KeysRequest, Refusal
from protocols.delivery.messages import JoinRequest
from protocols.wire import decode, encode, kind
from securefl import DPSGD, SGD, LocalOptimizer, SecAgg, Server, Store
from securefl.announcement import Announcement, public_tag
from securefl.client import Client
from securefl.errors import BadInput, Refused, RoundFailed
from securefl.learning import Cohort, Strategy
from securefl.plan import ClientLevel, HeldOut, Plan, PrivacyTerms, Survey
from securefl.policy import Policy, check_announced, largest_share
from securefl.privacy.mechanism import Budget
from securefl.round import enrol
from tests.securefl.federation import NAMES, WHOLE, client, clients, direct, enrolled, model, records, server
from tests.securefl.test_plan import plan

BUDGET = Budget(epsilon=3.0, delta=1e-5)
PRIVATE = DPSGD(noise_multiplier=4.0, sampling_rate=0.5, steps=3)
TEN = tuple(f"c{number}" for number in range(10))


def of_ten(**values: object) -> Plan:
    """A sound plan for ten clients of equal weight."""
    return plan(**({"protection": "secagg", "clients": TEN, "weights": (1.0,) * 10, "minimum": 7} | values))


def refusal(policy: Policy, asked: Plan, budget: Budget | None = None) -> str:
    with pytest.raises(Refused) as caught:
        policy.check(asked, asked.clients[0], budget)
    return str(caught.value)


def pinned(policy: Policy | None = None) -> tuple[Client, Plan]:
    owners = clients()
    roster = {owner.name: owner.public_key for owner in owners}
    accepted = server().enrol(roster)
    owners[0].policy = policy or Policy()
    owners[0].pin(roster, accepted)
    return owners[0], accepted


def opening(asked: Plan, attempt: int = 1) -> bytes:
    return encode(KeysRequest(announcement(asked, attempt)))


def announcement(asked: Plan, attempt: int = 1) -> bytes:
    weights = np.zeros(22, "<f4").tobytes()
    return Announcement("run", 1, attempt, asked, weights, public_tag(weights)).encoded()


@pytest.mark.parametrize(
    "asked",
    [
        of_ten(),
        of_ten(colluders=2),
        of_ten(protection="plain"),
        of_ten(protection="ckks", minimum=10, threshold=10, key_rounds=102),
        of_ten(protection="ckks", key_rounds=1),
        of_ten(protection="ckks-unmasked", bits=54, key_rounds=50),
        of_ten(bits=16),
        of_ten(weights=(1.0, *(1e-3,) * 9)),
    ],
)
def test_without_wishes_of_its_owner_every_sound_plan_is_allowed(asked: Plan) -> None:
    Policy().check(asked, "c0", None)


@pytest.mark.parametrize(
    ("policy", "values", "announced", "allowed", "limit"),
    [
        (Policy(minimum=8), {}, "minimum 7", "8 or more", "minimum"),
        (Policy(colluders=2), {"colluders": 1}, "colluders 1", "2 or more", "colluders"),
        (Policy(members=11), {}, "10 clients on its roster", "11 or more", "members"),
        (
            Policy(protections=("secagg", "ckks")),
            {"protection": "plain"},
            "'plain'",
            "'secagg' or 'ckks'",
            "protections",
        ),
        (Policy(architectures=("0a", "0b")), {"architecture": "0c"}, "'0c'", "2 others", "architectures"),
        (Policy(share=0.5), {"weights": (1.0, *(0.1,) * 9)}, "62% of a sum", "at most 50%", "share"),
    ],
)
def test_each_limit_is_kept_and_its_refusal_says_what_was_announced_allowed_and_what_to_do(
    policy: Policy, values: dict[str, object], announced: str, allowed: str, limit: str
) -> None:
    why = refusal(policy, of_ten(**values))
    assert announced in why
    assert f"this owner allows {allowed}" in why
    assert f"ask whoever runs the server for such a plan, or change '{limit}'" in why


@pytest.mark.parametrize(
    ("policy", "values"),
    [
        (Policy(minimum=7), {}),
        (Policy(colluders=2), {"colluders": 2}),
        (Policy(members=10), {}),
        (Policy(protections=("secagg",)), {}),
        (Policy(architectures=("0a", "0b")), {"architecture": "0b"}),
        (Policy(share=0.63), {"weights": (1.0, *(0.1,) * 9)}),
    ],
)
def test_what_just_meets_a_limit_is_allowed(policy: Policy, values: dict[str, object]) -> None:
    policy.check(of_ten(**values), "c0", None)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"minimum": 2}, "fewer than 3"),
        ({"minimum": 11}, "below the minimum"),
        ({"threshold": 5}, "too low"),
        ({"colluders": 3}, "colluders need a minimum"),
        ({"colluders": -1}, "colluders"),
        ({"protection": "plain", "colluders": 1}, "withstands no colluding client"),
        ({"protection": "ckks-unmasked", "colluders": 1}, "withstands no colluding client"),
        ({"protection": "ckks", "bits": 24, "key_rounds": 102}, "CKKS has 4096 and 32, 40, 48, 54"),
        ({"protection": "secagg", "bits": 40}, "16, 24 or 32"),
        ({"protection": "ckks", "key_rounds": 103}, "10 clients decrypt at most 102 sums under one key"),
        ({"protection": "ckks-unmasked", "key_rounds": 2**62}, "at most 102 sums under one key"),
        ({"protection": "ckks", "key_rounds": 0}, "0 sums"),
        ({"protection": "ckks", "key_rounds": -1}, "at least one sum"),
        ({"protection": "secagg", "key_rounds": 1}, "has no key"),
        ({"bits": 20}, "16, 24 or 32"),
        ({"protection": "rot13"}, "unknown protection"),
        ({"clients": TEN * 20, "weights": (1.0,) * 200, "minimum": 40, "bits": 16}, "does not fit 16 bits"),
        ({"bound": float("inf")}, "finite"),
        ({"rounds": 0}, "0 rounds"),
        ({"rounds": 10**6 + 1}, "1000001 rounds"),
    ],
)
def test_a_plan_that_is_unsound_in_itself_is_refused_by_every_policy(values: dict[str, object], words: str) -> None:
    why = refusal(Policy(), of_ten(**values))
    assert why.startswith("the plan is unsafe: ")
    assert words in why


@pytest.mark.parametrize("weights", [(1.0,) * 9, (*(1.0,) * 9, 0.0), (*(1.0,) * 9, 1.5), (*(1.0,) * 9, float("nan"))])
def test_weights_that_are_none_are_refused(weights: tuple[float, ...]) -> None:
    assert "not one number in (0, 1] for each client" in refusal(Policy(), of_ten(weights=weights))


def test_a_job_without_differential_privacy_is_refused_by_an_owner_who_wants_it() -> None:
    assert "takes part in differentially private jobs only" in refusal(Policy(), of_ten(), BUDGET)
    assert "private_only" in refusal(Policy(private_only=True), of_ten())
    assert "no privacy budget" in refusal(Policy(private_only=True), of_ten(mechanism=PRIVATE))
    Policy(private_only=True).check(of_ten(mechanism=PRIVATE), "c0", BUDGET)


@pytest.mark.parametrize(
    "values",
    [
        {"minimum": 2},
        {"members": 2},
        {"colluders": -1},
        {"protections": ()},
        {"protections": ("rot13",)},
        {"protections": ("plain", "ckks-unmasked"), "colluders": 1},
        {"architectures": ()},
        {"share": 0.0},
        {"share": 1.1},
        {"share": float("nan")},
    ],
)
def test_a_policy_that_no_plan_could_meet_or_that_hides_nobody_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        Policy(**values)  # type: ignore[arg-type]


def test_the_share_is_that_of_the_smallest_sum_with_the_lightest_others_less_the_colluders() -> None:
    weights = (0.5, 0.1, 0.2, 0.3, *(1.0,) * 6)
    assert largest_share(of_ten(weights=weights, minimum=4), "c0") == pytest.approx(0.5 / (0.5 + 0.1 + 0.2 + 0.3))
    withstood = of_ten(weights=weights, minimum=4, colluders=1)
    assert largest_share(withstood, "c0") == pytest.approx(0.5 / (0.5 + 0.1 + 0.2))
    assert largest_share(withstood, "c9") == pytest.approx(1.0 / (1.0 + 0.1 + 0.2))


@given(st.lists(st.floats(1e-3, 1), min_size=10, max_size=10), st.integers(7, 10), st.integers(0, 2), st.data())
def test_no_sum_that_the_plan_allows_shows_more_of_an_owner_than_its_share(
    weights: list[float], minimum: int, colluders: int, data: st.DataObject
) -> None:
    asked = of_ten(weights=tuple(weights), minimum=minimum, colluders=colluders)
    others = data.draw(st.permutations(range(1, 10)).map(lambda order: order[: minimum - 1]))
    honest = others[colluders:]
    share = weights[0] / (weights[0] + sum(weights[other] for other in honest))
    assert share <= largest_share(asked, "c0") * (1 + 1e-9)


def test_an_owner_s_policy_is_asked_when_a_plan_is_pinned() -> None:
    strict = Client("ada", records(0), model, policy=Policy(minimum=5))
    roster = {"ada": strict.public_key} | {owner.name: owner.public_key for owner in clients(NAMES[1:])}
    with pytest.raises(Refused, match="the plan has minimum 4, this owner allows 5 or more"):
        strict.pin(roster, server().enrol(roster))
    owner, accepted = pinned(Policy(minimum=4, architectures=(plan_of_five().architecture,)))
    assert kind(owner.handle(opening(accepted))) == Envelope.KIND


def plan_of_five() -> Plan:
    return server().enrol({owner.name: owner.public_key for owner in clients()})


def test_a_policy_that_is_tightened_in_a_run_holds_from_the_next_attempt_on() -> None:
    owner, accepted = pinned()
    assert kind(owner.handle(opening(accepted))) == Envelope.KIND
    owner.policy = Policy(protections=("ckks",))
    assert decode(owner.handle(opening(accepted, 2)), Refusal).reason == "policy"
    assert "this owner allows 'ckks'" in owner.errors[-1]


def test_one_owner_s_refusal_is_one_word_to_the_server_and_the_others_go_on() -> None:
    coordinator, owners = enrolled()
    owners[2].policy = Policy(colluders=1)
    outcome = coordinator.round(direct(owners))
    assert outcome.dropped == {"cyd": "refused: policy"}
    assert len(outcome.contributors) == 4
    assert "colluders 0, this owner allows 1 or more" in owners[2].errors[-1]


def test_the_reason_never_leaves() -> None:
    owner, accepted = pinned()
    reply = owner.handle(opening(msgspec.structs.replace(accepted, minimum=3)))
    assert reply == encode(Refusal("policy"))


TEXT = st.text(max_size=20)
FIELDS: dict[str, st.SearchStrategy[object]] = {
    "job": TEXT,
    "protection": st.sampled_from(["plain", "secagg", "ckks-unmasked", "ckks"]),
    "clients": st.lists(TEXT | st.sampled_from(NAMES), max_size=6).map(tuple),
    "weights": st.lists(st.floats(0, 1) | st.just(1.0), max_size=6).map(tuple),
    "bound": st.floats(1e-9, 1e9) | st.just(np.nextafter(8.0, 9.0).item()),
    "minimum": st.integers(-5, 2**63 - 1),
    "threshold": st.none() | st.integers(-5, 2**63 - 1),
    "rounds": st.integers(-5, 2**63 - 1),
    "mechanism": st.builds(SGD, st.floats(1e-3, 1), st.integers(1, 99))
    | st.builds(DPSGD, st.floats(0.1, 9), st.floats(0.1, 1), st.integers(1, 9), st.floats(0.1, 9)),
    "optimizer": st.builds(LocalOptimizer, st.floats(1e-3, 9), st.floats(0, 0.99)),
    "architecture": TEXT,
    "dimension": st.integers(-5, 2**63 - 1),
    "model_seed": st.integers(0, 2**63 - 1),
    "colluders": st.integers(-5, 2**63 - 1),
    "bits": st.integers(-5, 2**63 - 1) | st.sampled_from([16, 24, 40, 48, 54]),
    "corrupt": st.floats(0, 1),
    "dropout": st.floats(0, 1),
    "key_rounds": st.integers(-5, 2**63 - 1),
    "privacy": st.builds(
        PrivacyTerms,
        st.none() | st.builds(ClientLevel, st.floats(0.1, 9), st.floats(0.1, 9)),
        st.none() | st.builds(HeldOut, st.none() | st.floats(0.1, 9)),
        st.sampled_from(["record", "patient", "client"]),
        st.booleans(),
        st.booleans(),
        st.none() | st.builds(Survey, st.floats(0.1, 9)),
    ),
    "strategy": st.builds(Strategy, st.sampled_from(["fedavg", "fedavgm", "scaffold"]), st.floats(0.1, 9)),
    "cohort": st.builds(Cohort, st.sampled_from(["fixed", "poisson"]), st.integers(1, 9)),
}
OWNER, ACCEPTED = pinned()


def test_the_fields_below_are_those_of_a_plan() -> None:
    assert tuple(FIELDS) == Plan.__struct_fields__


@pytest.mark.parametrize("field", FIELDS)
@given(data=st.data(), joining=st.booleans())
def test_an_announced_plan_that_differs_in_any_field_from_the_pinned_one_is_refused(
    field: str, data: st.DataObject, joining: bool
) -> None:
    value = data.draw(FIELDS[field].filter(lambda drawn: drawn != getattr(ACCEPTED, field)))
    other = msgspec.structs.replace(ACCEPTED, **{field: value})
    reply = OWNER.handle(encode(JoinRequest(announcement(other))) if joining else opening(other))
    assert reply == encode(Refusal("policy"))
    assert f"is not the one that this owner accepted: {field} is " in OWNER.errors[-1]


@pytest.mark.parametrize("kind", ["plain", "ckks-unmasked"])
def test_a_cohort_that_stays_the_same_is_not_to_be_had_without_masks(kind: str) -> None:
    values: dict[str, object] = {"key_rounds": 102, "bits": 48} if kind == "ckks-unmasked" else {}
    assert "without masks" in refusal(Policy(same_cohort="plan"), of_ten(protection=kind, **values))


@pytest.mark.attack("more rounds than were accepted")
def test_no_round_is_taken_part_in_that_the_accepted_plan_does_not_have() -> None:
    coordinator, owners = server(rounds=2), clients()
    enrol(coordinator, owners)
    for _ in range(2):
        coordinator.round(direct(owners))
    with pytest.raises(RoundFailed) as failure:
        coordinator.round(direct(owners))
    assert set(failure.value.lost.values()) == {"refused: policy"}
    assert "round 3 of a plan of 2 rounds" in owners[0].errors[-1]


def test_a_long_announced_value_is_cut_off_in_the_owner_s_log() -> None:
    with pytest.raises(Refused) as caught:
        check_announced(msgspec.structs.replace(ACCEPTED, job="x" * 10**6), ACCEPTED)
    assert len(str(caught.value)) < 500


def test_a_plan_with_colluders_and_fewer_bits_runs_to_its_end_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    """n_C = 1 of five, 24 bits, and an owner who asks for just that."""

    def parties() -> tuple[Server, list[Client]]:
        shield = SecAgg(colluders=1, bits=24)
        coordinator = Server(
            model, shield, WHOLE, LocalOptimizer(0.5), rounds=5, run="0123", store=Store(tmp_path / "server.store")
        )
        owners = [client(name, folder=tmp_path) for name in NAMES]
        for owner in owners:
            owner.policy = Policy(colluders=1, protections=("secagg",))
        enrol(coordinator, owners)
        return coordinator, owners

    coordinator, owners = parties()
    coordinator.round(direct(owners))
    first = coordinator.model()
    coordinator, owners = parties()
    assert (coordinator.round_number, coordinator.plan.bits, coordinator.plan.colluders) == (1, 24, 1)
    outcome = coordinator.round(direct(owners))
    assert outcome.round == 2 and outcome.contributors == NAMES
    assert first is not None and (coordinator.model() != first).any()


def test_a_roster_with_another_key_under_the_owner_s_name_is_refused() -> None:
    owner, accepted = pinned()
    with pytest.raises(Refused, match="not this client's key"):
        owner.pin({name: os.urandom(32) for name in NAMES}, accepted)
