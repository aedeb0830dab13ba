"""What follows from scores: which methods, which verdict, and that a file keeps all of it."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from securefl.audit import assessment, result
from securefl.audit.assessment import Question, Scores, assess, default_headline, methods
from securefl.audit.checks import Declared
from securefl.audit.result import Audit
from securefl.errors import BadInput, NotARun
from securefl.plan import ClientLevel, LocalOptimizer, Plan, PrivacyTerms
from securefl.privacy import accountant
from securefl.privacy.mechanism import DPSGD, SGD
from securefl.report import audited as summaries
from securefl.verification import audited
from tests.securefl.test_plan import plan

CANARIES, ROUNDS, DELTA = 40, 6, 1e-5
MECHANISM = DPSGD(1.0, 1.0, 1)
WHOLE, SAMPLED, STEPS = Declared(1.0, (1.0,), 1.0), Declared(1.0, (1.0,), 0.5), Declared(math.sqrt(2), (1.0, 1.0), 0.5)
CLAIM = accountant.epsilon([MECHANISM] * ROUNDS, DELTA)
# By methods, the least assuming first.
NO_SAMPLING = ("one-run", "f-DP one-run", "Clopper-Pearson", "Gaussian mean shift", "one-shot estimator")


def scores(noise: float = 1.0, seed: int = 0, length: float = 1.0) -> Scores:
    generator, coins = np.random.default_rng(seed), np.arange(CANARIES) % 2 == 0
    shape = CANARIES, ROUNDS
    values = noise * generator.standard_normal(shape) + length * coins[:, None]
    known = {"s1": packed(generator.standard_normal(shape)), "s2": packed(generator.standard_normal(shape))}
    charges = {"s0": (ROUNDS, ROUNDS)}
    return Scores(*shape, packed(values), coins.astype(np.uint8).tobytes(), known, charges, {"base.weight": (60.0, 60)})


def packed(values: NDArray[np.float64]) -> bytes:
    return values.astype("<f4").tobytes()


def audit(seen: Scores, claim: float = CLAIM) -> Audit:
    asked = Question(WHOLE, claim, DELTA, default_headline(WHOLE))
    return Audit(
        job="t",
        client="a",
        unit="record",
        mechanism=MECHANISM,
        optimizer=LocalOptimizer(1.0),
        level=None,
        protection="plain",
        minimum=3,
        colluders=0,
        threshold=None,
        released=(MECHANISM,),
        asked=asked,
        scores=seen,
        found=assess(seen, asked),
        seconds=1.5,
        software={"python": "3"},
    )


@pytest.fixture(scope="module")
def honest() -> Audit:
    return audit(scores())


# ---- methods and headline


def test_the_default_headline_is_the_tightest_method_whose_assumption_holds() -> None:
    assert default_headline(WHOLE) == "Gaussian mean shift"
    assert default_headline(Declared(1.0, (1.0, 1.0), 1.0)) == "Gaussian mean shift"
    assert default_headline(SAMPLED) == "sampled Gaussian"
    assert default_headline(STEPS) == "f-DP one-run"  # a round shows several samplings at once
    for declared in (WHOLE, SAMPLED, STEPS):
        assert default_headline(declared) in methods(declared)


def test_methods_are_those_whose_assumptions_scores_can_meet() -> None:
    assert methods(WHOLE) == NO_SAMPLING
    assert methods(SAMPLED) == (*NO_SAMPLING[:3], "sampled Gaussian")
    assert methods(STEPS) == NO_SAMPLING[:3]


@pytest.mark.parametrize("headline", ["one-shot estimator", "sampled Gaussian", "largest", ""])
def test_a_headline_that_bounds_nothing_is_bad_input(headline: str) -> None:
    with pytest.raises(BadInput, match=r"bounds nothing here: name one of one-run, .*Gaussian mean shift as the headl"):
        assess(scores(), Question(WHOLE, CLAIM, DELTA, headline))


def test_every_method_bounds_and_the_named_one_is_the_headline() -> None:
    for declared in (WHOLE, SAMPLED, STEPS):
        for headline in ("one-run", default_headline(declared)):
            found = assess(scores(), Question(declared, CLAIM, DELTA, headline))
            assert tuple(bound.method for bound in found.bounds) == methods(declared)
            assert found.headline in found.bounds and found.headline.method == headline
            assert (found.headline.confidence, found.refuting.confidence) == (0.99, 0.999)
            # What refutes does not depend on which method was asked for.
            assert found.refuting.method == default_headline(declared)
            (own,) = (bound for bound in found.bounds if bound.method == found.refuting.method)
            assert found.refuting.epsilon <= own.epsilon


# ---- verdict


def test_honest_scores_refute_nothing(honest: Audit) -> None:
    assert honest.found.refuted == () and not honest.found.violated
    assert 0 < honest.found.headline.epsilon < CLAIM


def test_a_claim_below_the_bound_is_refuted_in_words(honest: Audit) -> None:
    found = audit(scores(), claim=1.0).found
    assert found.violated
    assert found.refuted == (
        f"epsilon is at least {honest.found.refuting.epsilon:.3f} and 1.000 is claimed (Gaussian mean shift, 99.9 %)",
    )


def test_a_claim_between_the_bounds_of_both_levels_is_not_refuted(honest: Audit) -> None:
    between = (honest.found.headline.epsilon + honest.found.refuting.epsilon) / 2
    found = audit(scores(), claim=between).found
    assert found.headline.refutes(between) and not found.violated


def test_a_test_that_fails_beyond_chance_is_named() -> None:
    (line,) = audit(scores(noise=0.5), claim=1e6).found.refuted
    assert line.startswith("noise scale: not as declared, there is as much noise as declared (p = ")


# ---- scores


def test_scores_come_back_as_they_were_put_in() -> None:
    seen = scores()
    assert seen.array.shape == (CANARIES, ROUNDS) and seen.array.dtype == np.float64
    assert packed(seen.array) == seen.values
    assert seen.coins.tolist() == [True, False] * (CANARIES // 2)
    assert {name: packed(rows) for name, rows in seen.others.items()} == seen.known


@pytest.mark.parametrize(
    "damage",
    [
        {"values": b""},
        {"values": bytes(4 * CANARIES * ROUNDS - 1)},
        {"included": bytes(CANARIES + 1)},
        {"known": {"s1": bytes(4)}},
        {"canaries": CANARIES + 1},
        {"rounds": ROUNDS - 1},
        {"canaries": -CANARIES, "rounds": -ROUNDS},
    ],
)
def test_damaged_scores_are_bad_input(damage: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="not as many as it says"):
        replace(scores(), **damage)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_bad_input(wrong: float) -> None:
    values = scores().array
    values[3, 2] = wrong
    with pytest.raises(BadInput, match="hold NaN, infinity"):
        assess(replace(scores(), values=packed(values)), Question(WHOLE, CLAIM, DELTA, default_headline(WHOLE)))


@pytest.mark.parametrize("coin", [0, 1])
def test_where_no_canary_is_in_or_none_out_nothing_is_shown(coin: int) -> None:
    for declared in (WHOLE, SAMPLED, STEPS):
        seen = replace(scores(declared.noise, length=coin), included=bytes([coin] * CANARIES), elsewhere={})
        found = assess(seen, Question(declared, CLAIM, DELTA, default_headline(declared)))
        assert found.headline.epsilon == 0 and not found.violated


# ---- the file


def test_an_audit_survives_its_file(honest: Audit, tmp_path: Path) -> None:
    without = audit(scores(noise=0.0))
    assert without.found.headline.epsilon == math.inf
    for one in (honest, without):
        (tmp_path / "audit.json").write_bytes(result.encoded(one))
        assert result.read(tmp_path / "audit.json") == one
    assert summaries.summarised(honest).at_least == honest.found.headline.epsilon
    assert summaries.summarised(without).at_least == "infinite"


def test_a_reading_gives_the_same_again(honest: Audit) -> None:
    assert honest.reassessed() == honest.found
    assert list(audited.mismatches(honest)) == []
    assert list(audited.mismatches(None)) == []


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[1]", b"\xff", b"[" * 100_000])
def test_what_is_no_audit_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    path.write_bytes(content)
    with pytest.raises(NotARun, match="name the file that securefl audit wrote"):
        result.read(path)
    with pytest.raises(NotARun, match="cannot be read"):
        result.read(tmp_path / "none.json")


def test_an_audit_with_damaged_scores_or_nonsense_declared_is_named(honest: Audit, tmp_path: Path) -> None:
    path, whole = tmp_path / "audit.json", result.encoded(honest)
    for original, other in ((b'"rounds":6', b'"rounds":7'), (b'"rate":1.0', b'"rate":7.0')):
        assert original in whole
        path.write_bytes(whole.replace(original, other))
        with pytest.raises(NotARun, match="name the file that securefl audit wrote"):
            result.read(path)


# ---- what it is about


def test_an_audit_is_about_runs_with_its_noise_and_protection(honest: Audit) -> None:
    assert honest.about(planned(), DELTA)
    assert not honest.about(planned(), 1e-6)
    assert not honest.about(planned(), None)
    level = PrivacyTerms(ClientLevel(1.0, 1.0), unit="client")
    others: tuple[dict[str, object], ...] = (
        {"rounds": ROUNDS + 1},
        {"mechanism": DPSGD(2.0, 1.0, 1)},
        {"mechanism": SGD(1.0, 1)},
        {"optimizer": LocalOptimizer(1.0, 0.9)},
        {"protection": "secagg"},
        {"minimum": 4},
        {"colluders": 1},
        {"threshold": 2},
        {"clients": ("x", "y", "z")},
        {"privacy": PrivacyTerms(unit="patient")},
        {"mechanism": SGD(1.0, 1), "privacy": level},
    )
    for other in others:
        assert not honest.about(planned(**other), DELTA), other


def planned(**other: object) -> Plan:
    return plan(**({"mechanism": MECHANISM, "rounds": ROUNDS} | other))


def test_an_audit_of_clients_is_about_their_noise_and_every_client(honest: Audit) -> None:
    of_clients = replace(
        honest, client="every client", unit="client", mechanism=SGD(1.0, 1), level=ClientLevel(1.0, 1.0)
    )
    terms = PrivacyTerms(ClientLevel(1.0, 1.0), unit="client")
    assert of_clients.about(planned(mechanism=SGD(1.0, 1), privacy=terms), DELTA)
    assert not of_clients.about(
        planned(mechanism=SGD(1.0, 1), privacy=replace(terms, client_level=ClientLevel(2.0, 1.0))), DELTA
    )
    assert not of_clients.about(planned(), DELTA)


# ---- what verification finds


def with_headline(honest: Audit, epsilon: float) -> Audit:
    return replace(honest, found=replace(honest.found, headline=replace(honest.found.headline, epsilon=epsilon)))


def test_answers_that_scores_do_not_give_are_named(honest: Audit) -> None:
    bound = f"{honest.found.headline.epsilon:.6g}"
    assert list(audited.mismatches(with_headline(honest, 0.5))) == [f"audit: headline is 0.5 and comes to {bound}"]
    other = "audit: has other bounds or tests than its scores allow"
    fewer = replace(honest, found=replace(honest.found, checks=honest.found.checks[:-1]))
    assert other in audited.mismatches(fewer)
    fewer = replace(honest, found=replace(honest.found, bounds=honest.found.bounds[1:]))
    assert other in audited.mismatches(fewer)


def test_words_that_are_not_this_program_s_are_named(honest: Audit) -> None:
    found = honest.found
    odd = "audit: what its bounds assume, its tests test or its findings say is not in the words of this program"
    for other in (
        replace(found, headline=replace(found.headline, assumes="nothing")),
        replace(found, bounds=(replace(found.bounds[0], source="a friend"), *found.bounds[1:])),
        replace(found, checks=(replace(found.checks[0], tests="all is well"), *found.checks[1:])),
    ):
        assert list(audited.mismatches(replace(honest, found=other))) == [odd]


def test_charges_a_confidence_or_a_claim_that_cannot_be_are_named(honest: Audit) -> None:
    seen, asked = honest.scores, honest.asked
    for other, words in (
        (
            replace(honest, scores=replace(seen, charges={"a": (ROUNDS * 2 + 1, ROUNDS)})),
            "charged 13 times in 6 rounds",
        ),
        (replace(honest, asked=replace(asked, confidence=0.999)), "for a confidence of 0.999"),
        (replace(honest, asked=replace(asked, claim=CLAIM / 3)), f"and what was charged comes to {CLAIM:.6g}"),
    ):
        assert any(words in line for line in audited.mismatches(other)), words


def test_a_verdict_that_scores_do_not_give_is_named() -> None:
    refuted = audit(scores(noise=0.3))
    cleared = replace(refuted, found=replace(refuted.found, refuted=()))
    first, *others = audited.mismatches(cleared)
    assert first == "audit: the claim is refuted by its scores, and it says otherwise"
    assert others and all(line.startswith("audit: refutes the claim: ") for line in others)


def test_a_question_about_another_mechanism_or_claim_is_named() -> None:
    refuted = audit(scores(noise=0.3))
    raised = audit(scores(noise=0.3), claim=1e4)
    assert f"audit: the claim is 10000, and what was charged comes to {CLAIM:.6g}" in audited.mismatches(raised)
    for declared in (Declared(0.3, (1.0,), 1.0), Declared(math.sqrt(2), (1.0, 1.0), 1.0)):
        asked = replace(refuted.asked, declared=declared)
        eased = replace(refuted, asked=asked, found=assess(refuted.scores, asked))
        assert "audit: what its scores are compared with is not the mechanism that it names" in audited.mismatches(
            eased
        )
    asked = replace(refuted.asked, headline="one-shot estimator")
    (line,) = audited.mismatches(replace(refuted, asked=asked))
    assert "bounds nothing here" in line


def test_the_level_that_refutes_is_the_one_in_its_words() -> None:
    assert assessment.REFUTING == 0.999
    assert msgspec.json.decode(result.encoded(audit(scores())))["asked"]["confidence"] == 0.99
