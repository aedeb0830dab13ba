from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.audit.bounds import clopper_pearson, mean_shift, one_run, one_run_fdp, one_shot, sampled
from securefl.audit.bounds.bound import Bound
from securefl.audit.bounds.scores import Guesses, a_fifth, correct
from securefl.errors import BadInput
from securefl.privacy.mechanism import SampledGaussian
from tests.securefl.audit.bounds.synthetic import gaussian


def one_step(inside: np.ndarray, outside: np.ndarray, delta: float, confidence: float = 0.99) -> Bound:
    columns = (np.reshape(one, (-1, 1)) for one in (inside, outside))
    return sampled.lower_bound(*columns, SampledGaussian(1.0, 1.0, 1), delta, confidence)


def estimate(inside: np.ndarray, outside: np.ndarray, delta: float, confidence: float = 0.99) -> Bound:
    return one_shot.estimate(inside, outside, delta)


def of_coins(method: Callable[..., Bound]) -> Callable[..., Bound]:
    """A bound of scores and coins, as one of two arrays."""

    def bound(inside: np.ndarray, outside: np.ndarray, delta: float, confidence: float = 0.99) -> Bound:
        included = np.arange(len(inside) + len(outside)) < len(inside)
        return method(np.concatenate((inside, outside)), included, delta, confidence)

    return bound


BOUNDS = {
    "one-run": of_coins(one_run.lower_bound),
    "f-DP one-run": of_coins(one_run_fdp.lower_bound),
    "Clopper-Pearson": clopper_pearson.lower_bound,
    "Gaussian mean shift": mean_shift.lower_bound,
    "sampled Gaussian": one_step,
}
METHODS = BOUNDS | {"one-shot estimator": estimate}

method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
bound = pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)

NOTHING = np.zeros(0)


@method
@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        (NOTHING, NOTHING),
        (NOTHING, np.arange(9.0)),
        (np.arange(9.0), NOTHING),
        (np.ones(1), np.zeros(0)),
        (np.ones(30), np.ones(30)),
        (np.zeros(30), np.ones(30)),
    ],
    ids=["nothing", "none in", "none out", "one canary", "all equal", "lower when in"],
)
def test_what_shows_nothing_gives_zero(method: Callable[..., Bound], inside: np.ndarray, outside: np.ndarray) -> None:
    # The estimate is two-sided: where nothing varies, lower scores tell as well as higher ones.
    lower_when_in = len(inside) == len(outside) and bool((inside < outside).all()) and len(inside) > 0
    expected = math.inf if method is estimate and lower_when_in else 0
    assert method(inside, outside, 1e-5).epsilon == expected


@method
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 1e200])
def test_scores_that_are_not_finite_are_refused(method: Callable[..., Bound], wrong: float) -> None:
    with pytest.raises(BadInput, match="finite"):
        method(np.array([0.0, wrong]), np.zeros(2), 1e-5)


@method
@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0, math.nan])
def test_a_delta_that_is_none_is_refused(method: Callable[..., Bound], delta: float) -> None:
    with pytest.raises(BadInput, match="delta"):
        method(np.ones(3), np.zeros(3), delta)


@bound
@pytest.mark.parametrize("confidence", [0.0, 0.4, 1.0, math.nan])
def test_a_confidence_that_is_none_is_refused(bound: Callable[..., Bound], confidence: float) -> None:
    with pytest.raises(BadInput, match="confidence"):
        bound(np.ones(3), np.zeros(3), 1e-5, confidence)


@bound
def test_the_more_confident_the_lower_and_the_noisier_the_lower(bound: Callable[..., Bound]) -> None:
    seen = [gaussian(seed, 2.0, canaries=400) for seed in range(2)]
    sure, surer = ([bound(one.inside, one.outside, 1e-5, level).epsilon for one in seen] for level in (0.9, 0.999))
    assert all(less < more for less, more in zip(surer, sure, strict=True))
    noisier = [gaussian(seed, 1.0, canaries=400) for seed in range(2)]
    assert np.mean([bound(one.inside, one.outside, 1e-5, 0.9).epsilon for one in noisier]) < np.mean(sure)


@bound
def test_the_bound_names_itself_its_level_and_what_it_assumes(bound: Callable[..., Bound]) -> None:
    seen = gaussian(0, 2.0, canaries=400)
    found = bound(seen.inside, seen.outside, 1e-5, 0.999)
    assert BOUNDS[found.method] is bound
    assert f"epsilon at least {found.epsilon:.3f} at delta 1e-05 with 99.9 % confidence, if " in str(found)
    assert found.refutes(found.epsilon / 2) and not found.refutes(found.epsilon)


@pytest.mark.parametrize("method", [METHODS[name] for name in METHODS if name != "sampled Gaussian"])
@settings(max_examples=40)
@given(st.lists(st.integers(-3, 3), max_size=25), st.lists(st.integers(-3, 3), max_size=25), st.randoms())
def test_the_order_of_canaries_changes_nothing_even_where_scores_are_equal(
    method: Callable[..., Bound], inside: list[int], outside: list[int], random: st.DataObject
) -> None:
    def found() -> float:
        return method(np.array(inside, dtype=float), np.array(outside, dtype=float), 1e-5, 0.6).epsilon

    first = found()
    for one in (inside, outside):
        random.shuffle(one)
    assert found() == pytest.approx(first, rel=1e-5)
    assert first >= 0


@pytest.mark.parametrize("method", [one_run.lower_bound, one_run_fdp.lower_bound])
def test_coins_must_be_booleans_one_for_each_score(method: Callable[..., Bound]) -> None:
    with pytest.raises(BadInput, match="True or False"):
        method(np.zeros(3), np.zeros(3), 1e-5)
    with pytest.raises(BadInput, match="there are 3 scores"):
        method(np.zeros(3), np.zeros(2, dtype=bool), 1e-5)


@pytest.mark.parametrize("guesses", [(Guesses(2, 2),), (Guesses(0, 0),), (Guesses(-1, 2),)])
@pytest.mark.parametrize("method", [one_run.lower_bound, one_run_fdp.lower_bound])
def test_guesses_that_cannot_be_made_are_refused(method: Callable[..., Bound], guesses: tuple[Guesses, ...]) -> None:
    with pytest.raises(BadInput, match="of 3 canaries"):
        method(np.zeros(3), np.zeros(3, dtype=bool), 1e-5, guesses=guesses)


def test_what_are_no_numbers_or_no_array_of_them_is_refused() -> None:
    with pytest.raises(BadInput, match="not numbers"):
        mean_shift.lower_bound(["high"], [0.0], 1e-5)
    with pytest.raises(BadInput, match="shape"):
        mean_shift.lower_bound(np.zeros((2, 2)), [0.0], 1e-5)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.data())
def test_a_guess_among_equals_is_never_better_than_chance_would_be(scores: list[int], data: st.DataObject) -> None:
    count = len(scores)
    included = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    highest = data.draw(st.integers(0, count))
    guesses = Guesses(highest, data.draw(st.integers(0, count - highest)))
    ranked = data.draw(st.permutations(range(count)).map(lambda order: sorted(order, key=lambda i: scores[i])))
    coins = included[ranked]
    chosen = int(coins[count - highest :].sum() + (~coins[: guesses.lowest]).sum())
    assert correct(np.array(scores, dtype=float), included, guesses) <= chosen


@given(st.integers(1, 10_000))
def test_a_fifth_of_any_number_of_canaries_can_be_guessed(canaries: int) -> None:
    (guesses,) = a_fifth(canaries)
    assert 1 <= sum(guesses) <= canaries
