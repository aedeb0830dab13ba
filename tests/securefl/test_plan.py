from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from securefl.errors import BadInput
from securefl.learning import Cohort, Strategy
from securefl.plan import AdaptiveClip, ClientLevel, HeldOut, LocalOptimizer, Plan, PrivacyTerms, Survey
from securefl.privacy.mechanism import SGD


def plan(**values: object) -> Plan:
    given = {
        "job": "t",
        "protection": "plain",
        "clients": ("a", "b", "c"),
        "weights": (1.0, 0.5, 0.25),
        "bound": 8.0,
        "minimum": 3,
        "threshold": None,
        "rounds": 5,
        "mechanism": SGD(1.0, 1),
        "optimizer": LocalOptimizer(1.0),
        "architecture": "",
        "dimension": 2,
        "model_seed": 0,
    }
    return Plan(**(given | values))  # type: ignore[arg-type]


OTHER: dict[str, object] = {
    "job": "u",
    "protection": "secagg",
    "clients": ("a", "b", "d"),
    "weights": (1.0, 0.5, 0.3),
    "bound": 9.0,
    "minimum": 4,
    "threshold": 3,
    "rounds": 6,
    "mechanism": SGD(1.0, 2),
    "optimizer": LocalOptimizer(2.0),
    "architecture": "0a",
    "dimension": 3,
    "model_seed": 1,
    "colluders": 1,
    "bits": 24,
    "corrupt": 0.2,
    "dropout": 0.2,
    "key_rounds": 3,
    "privacy": PrivacyTerms(disjoint=True),
    "strategy": Strategy("fedavg", 0.5),
    "cohort": Cohort("fixed", 3),
}

TERMS: dict[str, object] = {
    "client_level": ClientLevel(1.0, 1.0),
    "held_out": HeldOut(5.0),
    "unit": "patient",
    "disjoint": True,
    "simulated": True,
    "survey": Survey(2.0),
}


def test_a_plan_survives_its_encoding_with_the_same_digest() -> None:
    one = plan(weights=(1, 1, 1), bound=8, optimizer=LocalOptimizer(1))
    again = msgspec.json.decode(one.encoded(), type=Plan)
    assert again == one
    assert again.digest() == one.digest()


@pytest.mark.parametrize("field", OTHER)
def test_every_field_is_in_the_digest(field: str) -> None:
    assert tuple(OTHER) == Plan.__struct_fields__
    assert plan(**{field: OTHER[field]}).digest() != plan().digest()


@pytest.mark.parametrize("term", TERMS)
def test_every_term_of_privacy_is_in_the_digest(term: str) -> None:
    assert tuple(TERMS) == PrivacyTerms.__struct_fields__
    changed = PrivacyTerms(**{term: TERMS[term]})  # type: ignore[arg-type]
    assert plan(privacy=changed).digest() != plan().digest()


@pytest.mark.parametrize(
    "build",
    [
        lambda: ClientLevel(0.0, 1.0),
        lambda: ClientLevel(1.0, float("inf")),
        lambda: AdaptiveClip(1.5, 0.2, 5.0),
        lambda: AdaptiveClip(0.5, 0.0, 5.0),
        lambda: AdaptiveClip(0.5, 0.2, 0.0),
        lambda: HeldOut(0.0),
        lambda: HeldOut(1.0, 0.0),
        lambda: Survey(0.0),
        lambda: Survey(1.0, bins=1),
        lambda: Survey(1.0, scores=float("inf")),
        lambda: Survey(1.0, scores=0.0),
    ],
)
def test_impossible_terms_are_refused(build: Callable[[], object]) -> None:
    with pytest.raises(BadInput):
        build()


@pytest.mark.parametrize(("rate", "momentum"), [(0.0, 0.0), (float("nan"), 0.0), (0.1, 1.0), (-1.0, 0.0)])
def test_impossible_descents_are_refused(rate: float, momentum: float) -> None:
    with pytest.raises(BadInput, match="learning rate"):
        LocalOptimizer(rate, momentum)
