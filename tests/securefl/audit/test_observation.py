"""What an adversary sees of canaries, through the real protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray
from scipy import stats

from benchmarks.audited import small
from securefl import protection
from securefl.audit.canaries import direction, rows
from securefl.audit.canary_audit import audit
from securefl.audit.observation import Audited, of_clients, of_records
from securefl.errors import BadInput
from securefl.job import Job
from securefl.job.sections import Metrics
from tests.securefl.audit.varied import clients, records

Floats = NDArray[np.float64]

COINS, MANY = np.arange(60) % 2 == 0, np.arange(1000) % 2 == 0
# Probability of each statistical assertion here to fail for a mechanism as declared.
LEVEL = 1e-6


class Seen(NamedTuple):
    """All rounds of one audit; ``scores`` and each one of ``known``: shape (canaries, rounds)."""

    audited: Audited
    scores: Floats
    known: dict[str, Floats]

    @property
    def inside(self) -> Floats:
        return self.scores[self.audited.included]

    @property
    def outside(self) -> Floats:
        return self.scores[~self.audited.included]


def seen(made: Audited) -> Seen:
    sights = list(made.sights)
    scores = np.stack([sight.scores for sight in sights], axis=1)
    return Seen(made, scores, {name: np.stack([s.known[name] for s in sights], axis=1) for name in sights[0].known})


def of_first(job: Job, seed: int = 5, coins: NDArray[np.bool_] = COINS) -> Seen:
    return seen(of_records(job, job.federation(), "s0", coins, seed))


def of_all(job: Job, coins: NDArray[np.bool_], seed: int = 5) -> Seen:
    return seen(of_clients(job, job.federation(), coins, seed))


def is_noise(values: Floats, deviation: float) -> None:
    """That these are Gaussian with mean 0, each assertion with a false-alarm rate of ``LEVEL``."""
    share = stats.chi2.cdf(np.sum(values**2) / deviation**2, values.size)
    assert LEVEL / 2 < share < 1 - LEVEL / 2
    assert stats.kstest(values.ravel() / deviation, stats.norm.cdf).pvalue > LEVEL


@pytest.fixture(scope="module")
def plain() -> Seen:
    return of_first(records("plain"))


# ---- records


def test_a_canary_that_is_there_scores_1_and_noise_and_one_that_is_not_noise_alone(plain: Seen) -> None:
    assert plain.scores.shape == (60, 2)
    is_noise(plain.outside, 1.0)
    is_noise(plain.inside - 1, 1.0)


def test_what_is_left_of_the_aggregate_is_the_audited_client_s_own_update(plain: Seen) -> None:
    """The others' noise, as large as its own, is off to the last digit that the encoding keeps."""
    job = records("plain")
    made = of_records(job, job.federation(), "s0", COINS, 5)
    moved = job.training.learning_rate / 10  # of ten records
    for number, step in enumerate(made.stage.steps()):
        module = made.stage.module(step.before)
        own = rows(module, made.stage.update_of("s0", step)) @ direction(module) / moved
        np.testing.assert_allclose(plain.scores[:, number], own, atol=1e-4)


def test_the_known_noise_is_that_of_the_others_and_nobody_s_own(plain: Seen) -> None:
    assert sorted(plain.known) == ["s1", "s2"]
    for values in plain.known.values():
        is_noise(values, 1.0)
        assert stats.pearsonr(values.ravel(), (plain.scores - COINS[:, None]).ravel()).pvalue > LEVEL


def test_scores_are_the_same_under_every_protection(plain: Seen) -> None:
    for kind in ("secagg", "ckks"):
        other = of_first(records(kind))
        np.testing.assert_allclose(other.scores, plain.scores, atol=2e-3)
        np.testing.assert_allclose(other.known["s1"], plain.known["s1"], atol=2e-3)


def test_another_seed_gives_other_noise_of_the_audited_client_alone(plain: Seen) -> None:
    other = of_first(records("plain"), seed=6)
    assert np.abs(other.scores - plain.scores).max() > 1
    np.testing.assert_allclose(other.known["s1"][:, 0], plain.known["s1"][:, 0])


def test_sampled_canaries_take_part_in_some_steps() -> None:
    found = of_first(records(rounds=1, noise=0.5, rate=0.5), coins=MANY)
    is_noise(found.outside, 0.5)

    def mixed(score: Floats) -> Floats:
        halves: Floats = (stats.norm.cdf(score / 0.5) + stats.norm.cdf((score - 1) / 0.5)) / 2
        return halves

    assert stats.kstest(found.inside.ravel(), mixed).pvalue > LEVEL


@pytest.mark.parametrize(
    ("training", "shift", "deviation"),
    [({"steps": 3}, 3.0, 3**0.5), ({"steps": 2, "momentum": 0.5}, 2.5, 3.25**0.5)],
)
def test_several_steps_of_a_round_add_up_with_their_weights(
    training: dict[str, float], shift: float, deviation: float
) -> None:
    found = of_first(records(rounds=1, noise=0.5, **training), coins=MANY)
    is_noise(found.outside, 0.5 * deviation)
    # Five deviations of the mean; steps turn the direction a little, and shorten what is seen of them.
    assert abs(found.inside.mean() - shift) < 5 * 0.5 * deviation / 500**0.5 + 0.03 * shift


def test_declared_weights_and_clips_are_taken_off_whoever_is_audited() -> None:
    job = records(rounds=1)
    job = replace(job, weights={"s0": 0.5, "s1": 1.0, "s2": 0.25}, privacy=replace(job.privacy, clip=0.5))
    found = seen(of_records(job, job.federation(), "s2", COINS, 5))
    assert found.audited.audited == ("s2",) and sorted(found.known) == ["s0", "s1"]
    is_noise(found.outside, 1.0)
    is_noise(found.inside - 1, 1.0)


def test_ledgers_are_read_as_they_are(plain: Seen) -> None:
    assert (plain.audited.charged("s0"), plain.audited.contributed("s0")) == (2, 2)


def test_without_a_seed_no_two_audits_see_the_same() -> None:
    job = records(rounds=1)
    one, other = (seen(of_records(job, job.federation(), "s0", COINS)) for _ in range(2))
    assert np.abs(one.scores - other.scores).max() > 0.1
    np.testing.assert_allclose(one.known["s1"], other.known["s1"])  # the adversary's


# ---- clients


@pytest.mark.parametrize("kind", ["plain", "secagg"])
def test_canary_clients_score_1_and_the_noise_of_those_whom_the_plan_trusts(kind: str) -> None:
    """With masks most clients' shares come to the declared noise; without, each client's own has to."""
    found = of_all(clients(kind), np.arange(24) % 3 == 0)
    unknown = protection.honest(found.audited.stage.plan)
    assert unknown == {"plain": 1, "secagg": 16}[kind]
    assert len(found.known) == 24 - unknown
    is_noise(found.outside, 0.5)
    is_noise(found.inside - 1, 0.5)
    # What is known has been taken off: by itself it is as large as this.
    is_noise(np.sum(list(found.known.values()), axis=0), 0.5 * ((24 - unknown) / unknown) ** 0.5)
    assert found.audited.charged("canary-00003") == found.audited.contributed("canary-00003") == 2


def test_metrics_and_an_adaptive_clip_change_nothing_of_an_audit_of_clients() -> None:
    job = replace(clients(rounds=4, adaptive_quantile=0.5), metrics=Metrics(noise_multiplier=5.0))
    found = of_all(job, np.arange(12) % 2 == 0)
    is_noise(found.outside, 0.5)
    is_noise(found.inside - 1, 0.5)


# ---- what cannot be audited


def test_jobs_without_noise_and_unknown_clients_are_bad_input() -> None:
    job = records()
    bare = replace(job, privacy=replace(job.privacy, enabled=False))
    with pytest.raises(BadInput, match="without DP-SGD"):
        of_records(bare, bare.federation(), "s0", COINS)
    with pytest.raises(BadInput, match=r"no client 's9' in this job: name one of s0, s1, s2"):
        of_records(job, job.federation(), "s9", COINS)
    with pytest.raises(BadInput, match="hides no clients"):
        of_clients(job, job.federation(), COINS)


def test_noise_that_the_encoding_cuts_off_is_not_taken_for_too_little() -> None:
    """In an update noise has a deviation of 0.5 * 1 / 10, more with momentum; six of them must be within the bound."""
    job = records(momentum=0.5)
    for bound, fits in ((0.55, False), (0.65, True)):
        tight = replace(job, protection=replace(job.protection, bound=bound))
        if fits:
            of_records(tight, tight.federation(), "s0", COINS)
            continue
        with pytest.raises(BadInput, match=r"protection\.bound 0\.55: to audit it, raise the bound to 0\.6$"):
            of_records(tight, tight.federation(), "s0", COINS)


def test_what_moves_the_model_itself_is_noise_alone_once_known_records_are_taken_off() -> None:
    """Of ten numbers in six rounds the squares, in deviations, have a mean of 60; false alarm: off by 8 deviations."""
    found = audit(small(1.0, noise=0.3), count=4, seed=3).scores.elsewhere
    squares, count = (sum(one[part] for one in found.values()) for part in (0, 1))
    assert (count, set(found)) == (60, {"base.weight", "base.bias"})
    assert abs(squares / 0.3**2 - 60) < 8 * (2 * 60) ** 0.5


@pytest.mark.parametrize("headline", ["one-shot estimator", "sampled Gaussian", "nonsense"])
def test_a_headline_that_bounds_nothing_is_refused_before_the_first_round(headline: str) -> None:
    rounds: list[int] = []
    with pytest.raises(BadInput, match="bounds nothing here"):
        audit(small(1.0), count=4, headline=headline, watch=lambda number, sight: rounds.append(number))
    assert rounds == []


@pytest.mark.parametrize(
    ("job", "client", "message"),
    [
        (lambda: replace(small(1.0), privacy=replace(small(1.0).privacy, enabled=False)), None, "without DP-SGD"),
        (lambda: small(1.0), "s9", "no client 's9'"),
        (clients, "s0", "leave --client out"),
    ],
)
def test_an_audit_of_what_is_not_there_is_bad_input(job: Callable[[], Job], client: str | None, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        audit(job(), client=client, count=4)
