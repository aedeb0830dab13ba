"""Whose noise an audience knows, and what epsilon is left towards it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from securefl.plan import Plan
from securefl.privacy import accountant
from securefl.privacy.mechanism import DPSGD, Budget, NoisedSum, Skellam
from securefl.releases import releases
from securefl.report import claims
from securefl.report.document import Claim
from securefl.report.statement import Charge, Statement
from tests.securefl.report.runs import CLIENT_LEVEL, CLIENTS, JOB, Scene, statement

DELTA = 1e-5


def by_audience(found: tuple[Claim, ...]) -> dict[str, Claim]:
    return {claim.audience: claim for claim in found}


def one(plan: Plan, budget: Budget | None = Budget(90.0, DELTA)) -> Statement:  # noqa: B008
    return statement(plan, budget, CLIENTS[0])


def client_level(kind: str = "secagg", colluders: int = 1) -> Plan:
    return Scene(f'{CLIENT_LEVEL}[protection]\nkind = "{kind}"\ncolluders = {colluders}\n').plan


def test_record_level_noise_gives_one_epsilon_towards_everyone() -> None:
    plan = Scene().plan
    found = by_audience(claims.of_client(one(plan), plan))
    expected = accountant.epsilon([plan.mechanism] * 10, DELTA)
    assert {claim.epsilon for claim in found.values()} == {expected}
    assert {claim.accountant for claim in found.values()} == {"PLD"}
    assert all("client's own" in claim.why for claim in found.values())
    assert all(isinstance(c.cross_check, float) and c.cross_check >= expected for c in found.values())


# Of at least 4 contributors: what the server alone, one client, and n_C clients with the server do not know.
@pytest.mark.parametrize(
    ("kind", "colluders", "unknown"),
    [
        ("secagg", 0, {"server": 4, "peer": 3, "colluders": 0, "holder": 4}),
        ("secagg", 1, {"server": 4, "peer": 3, "colluders": 3, "holder": 4}),
        ("ckks", 1, {"server": 4, "peer": 3, "colluders": 3, "holder": 4}),
        ("plain", 0, {"server": 1, "peer": 3, "colluders": 1, "holder": 4}),
        ("ckks-unmasked", 0, {"server": 4, "peer": 3, "colluders": 1, "holder": 4}),
    ],
)
def test_an_audience_knows_the_noise_of_its_own(kind: str, colluders: int, unknown: dict[str, int]) -> None:
    plan = client_level(kind, colluders)
    assert plan.minimum == 4
    assert {audience: claims.unknown_noises(plan, audience) for audience in claims.AUDIENCES} == unknown


def test_less_is_learnt_where_more_noise_is_unknown() -> None:
    plan = client_level()
    found = by_audience(claims.of_client(one(plan), plan))
    charged = accountant.epsilon(list(releases(plan)) * 10, DELTA, "client")
    assert found["colluders"].epsilon == found["peer"].epsilon == pytest.approx(charged)
    assert found["server"].epsilon == found["holder"].epsilon
    assert isinstance(found["server"].epsilon, float) and found["server"].epsilon < charged
    assert {claim.accountant for claim in found.values()} == {"RDP"}


def test_colluders_that_the_plan_does_not_name_are_promised_nothing() -> None:
    plan = client_level(colluders=0)
    claim = by_audience(claims.of_client(one(plan), plan))["colluders"]
    assert (claim.epsilon, claim.delta) == ("none", "none")
    assert "colluders are 0" in claim.why


@given(st.integers(1, 50), st.integers(1, 50))
def test_the_noise_that_is_unknown_grows_with_the_contributors(honest: int, noises: int) -> None:
    charged = Skellam("update", 2.0, 1000.0, 62, honest)
    found = claims.seen(charged, noises)
    assert isinstance(found, Skellam)
    assert found.variance / noises == pytest.approx(charged.variance / honest)


def test_what_is_a_clients_own_noise_stays_as_it_was_charged() -> None:
    for release in (DPSGD(1.0, 0.5, 3), NoisedSum("metrics", 5.0, 1.0)):
        assert claims.seen(release, 1) is release


def test_without_a_budget_nothing_is_claimed() -> None:
    plan = Scene().plan
    for claim in claims.of_client(one(plan, None), plan):
        assert (claim.epsilon, claim.cross_check, claim.accountant) == ("none", "none", "none")


def test_noise_that_protects_nobody_is_called_infinite() -> None:
    plan = Scene(JOB.replace("noise_multiplier = 4.0", "noise_multiplier = 0.001")).plan
    made = replace(one(Scene().plan), charges=(Charge(1, 1, releases(plan)),))
    assert {claim.epsilon for claim in claims.of_client(made, plan)} == {"infinite"}


def test_record_level_charges_claim_nothing_for_whole_clients() -> None:
    plan = Scene().plan
    for claim in claims.of_client(replace(one(plan), unit="client"), plan):
        assert claim.epsilon == "none"
        assert "no epsilon for this unit" in claim.why


def test_charges_that_the_plan_does_not_release_claim_nothing() -> None:
    plan = Scene().plan
    more = replace(one(plan), charges=(Charge(1, 1, (DPSGD(9.0, 0.5, 3),)), *one(plan).charges[1:]))
    for claim in claims.of_client(more, plan):
        assert (claim.epsilon, claim.delta, claim.cross_check) == ("none", "none", "none")
        assert "not what the plan releases" in claim.why


def test_a_client_that_was_never_charged_has_epsilon_zero() -> None:
    plan = Scene().plan
    assert {claim.epsilon for claim in claims.of_client(replace(one(plan), charges=()), plan)} == {0.0}


def test_disjoint_clients_compose_in_parallel() -> None:
    plan = Scene().plan
    stated = [statement(plan, Budget(9.0, DELTA), name) for name in CLIENTS]
    stated[0] = replace(stated[0], charges=stated[0].charges[:4])
    federation = by_audience(claims.of_federation(stated, plan))["holder"]
    assert federation.epsilon == by_audience(claims.of_client(stated[1], plan))["holder"].epsilon
    assert "nobody's data is at two clients" in federation.why


def test_clients_that_nobody_declared_disjoint_are_composed() -> None:
    plan = Scene(JOB.replace("disjoint = true", "disjoint = false")).plan
    stated = [statement(plan, Budget(9.0, DELTA), name) for name in CLIENTS]
    federation = by_audience(claims.of_federation(stated, plan))["holder"]
    assert federation.epsilon == accountant.epsilon([plan.mechanism] * 50, DELTA)
    assert "all releases of all clients are composed" in federation.why


def test_a_federation_has_the_largest_of_different_deltas() -> None:
    plan = Scene().plan
    stated = [statement(plan, Budget(9.0, delta), name) for delta, name in zip((1e-6, 1e-5), CLIENTS[:2], strict=True)]
    assert {claim.delta for claim in claims.of_federation(stated, plan)} == {1e-5}


def test_one_noise_does_not_cover_a_person_at_several_clients() -> None:
    text = CLIENT_LEVEL.replace("disjoint = true", "disjoint = false")
    plan = Scene(f"{text}[protection]\ncolluders = 1\n").plan
    stated = [replace(statement(plan, Budget(90.0, DELTA), name), unit="record") for name in CLIENTS]
    assert all(isinstance(claim.epsilon, float) for claim in claims.of_client(stated[0], plan))
    for claim in claims.of_federation(stated, plan):
        assert claim.epsilon == "none"
        assert "too small" in claim.why


def test_a_whole_client_is_at_one_client_only() -> None:
    plan = Scene(f"{CLIENT_LEVEL.replace('disjoint = true', '')}[protection]\ncolluders = 1\n").plan
    stated = [statement(plan, Budget(90.0, DELTA), name) for name in CLIENTS]
    assert all(isinstance(claim.epsilon, float) for claim in claims.of_federation(stated, plan))


def test_a_client_without_a_claim_leaves_the_federation_without_one() -> None:
    plan = Scene().plan
    stated = [statement(plan, Budget(9.0, DELTA) if name != "hospital-4" else None, name) for name in CLIENTS]
    for claim in claims.of_federation(stated, plan):
        assert claim.epsilon == "none"
        assert "hospital-4" in claim.why


def test_a_figure_is_a_number_or_a_word() -> None:
    assert claims.figure(2.5) == 2.5
    assert claims.figure(math.inf) == "infinite"
