from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics

from securefl import measures


def binary(count: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    chance = np.round(generator.random(count), 2)  # with ties
    labels = np.r_[0, 1, generator.integers(0, 2, count - 2)]
    return np.stack([1 - chance, chance], axis=1), labels


@given(count=st.integers(2, 60), seed=st.integers(0, 10_000))
def test_the_area_is_that_of_scikit_learn(count: int, seed: int) -> None:
    probabilities, labels = binary(count, seed)
    expected = metrics.roc_auc_score(labels, probabilities[:, 1])
    assert measures.auc(probabilities[:, 1], labels == 1) == pytest.approx(expected, abs=1e-12)


@given(count=st.integers(2, 60), seed=st.integers(0, 10_000))
def test_the_area_is_the_share_of_pairs_that_are_in_order(count: int, seed: int) -> None:
    probabilities, labels = binary(count, seed)
    high, low = probabilities[labels == 1, 1], probabilities[labels == 0, 1]
    pairs = np.sign(high[:, None] - low[None, :]) / 2 + 0.5
    assert measures.auc(probabilities[:, 1], labels == 1) == pytest.approx(pairs.mean(), abs=1e-12)


def test_one_kind_of_record_has_no_area() -> None:
    scores = np.array([0.1, 0.9])
    assert math.isnan(measures.auc(scores, np.array([True, True])))
    found = measures.of_classes(np.array([[0.4, 0.6], [0.2, 0.8]]), np.array([1, 1]))
    assert set(found) == {"log_loss", "calibration_error"}


def test_log_loss_is_that_of_scikit_learn() -> None:
    probabilities, labels = binary(500, 1)
    inside = np.clip(probabilities, 0.01, 0.99)
    assert measures.log_loss(inside, labels) == pytest.approx(metrics.log_loss(labels, inside[:, 1]))


def test_a_certain_error_costs_no_more_than_the_bound() -> None:
    probabilities, labels = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1])
    assert measures.log_loss(probabilities, labels) == pytest.approx(measures.LOSS_BOUND / 2)
    assert measures.log_loss(probabilities, labels, bound=4.0) == pytest.approx(2.0)


def test_calibration_error_by_hand() -> None:
    # Two at confidence .8, one of them right; two at .55, both right: |.5 - .8| / 2 + |1 - .55| / 2.
    probabilities = np.array([[0.8, 0.2], [0.8, 0.2], [0.45, 0.55], [0.45, 0.55]])
    assert measures.calibration_error(probabilities, np.array([0, 1, 1, 1])) == pytest.approx(0.15 + 0.225)


def test_confidences_that_come_true_are_calibrated() -> None:
    chance = np.repeat([0.6, 0.7, 0.9], 10)
    labels = np.concatenate([np.arange(10) >= round(10 * p) for p in (0.6, 0.7, 0.9)]).astype(np.int64)
    assert measures.calibration_error(np.stack([chance, 1 - chance], axis=1), labels) == pytest.approx(0, abs=1e-12)


def test_certainty_lies_in_the_last_bin() -> None:
    assert measures.calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0
    assert measures.calibration_error(np.array([[1.0, 0.0]]), np.array([1])) == 1


def test_errors_are_in_the_unit_of_the_target() -> None:
    predicted, expected = np.array([[1.0], [2.0]]), np.array([[2.0], [5.0]])
    assert measures.of_numbers(predicted, expected) == {"mae": 2.0, "rmse": pytest.approx(math.sqrt(5))}
    assert measures.of_numbers(predicted, expected, size=4.0) == {"mae": 8.0, "rmse": pytest.approx(4 * math.sqrt(5))}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_model_that_diverged_has_no_figures(bad: float) -> None:
    assert measures.of_classes(np.array([[bad, 0.0]]), np.array([0])) == {}
    assert measures.of_numbers(np.array([[bad]]), np.array([[0.0]])) == {}


def test_more_than_two_classes_have_no_area() -> None:
    found = measures.of_classes(np.full((4, 3), 1 / 3), np.array([0, 1, 2, 0]))
    assert found == {"log_loss": pytest.approx(math.log(3)), "calibration_error": pytest.approx(0.5 - 1 / 3)}


def test_they_are_told_in_words_with_units() -> None:
    line = measures.told({"mae": 2.5, "log_loss": 0.44, "auc": 0.7711}, "grade points")
    assert line == "area under the ROC curve 0.771, log-loss 0.440 nats, mean absolute error 2.500 grade points"
    assert measures.told({}) == ""


def test_a_label_that_the_model_has_no_output_for_leaves_no_figures() -> None:
    assert measures.of_classes(np.full((2, 2), 0.5), np.array([0, 2])) == {}
