"""Records found by matching gradients: of one client, of few together, and what stops it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from securefl import vector
from securefl.attacks.gradient_matching import _gradient as gradient
from securefl.attacks.gradient_matching import _labels as labels
from securefl.attacks.gradient_matching import _model as model
from securefl.attacks.gradient_matching import attacked, deep_leakage, inverting_gradients, verdict
from securefl.attacks.pictures import identified, pixels, private_digits, psnr
from securefl.attacks.scene import one_thread
from securefl.attacks.settings import setting

RECORDS = private_digits()


def one_hot(rows: slice) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(RECORDS.labels[rows]), 10).float()


def seen(rows: slice) -> torch.Tensor:
    return gradient(vector.build(model, 0), torch.from_numpy(RECORDS.features[rows]), one_hot(rows)).detach()


@pytest.mark.attack("gradient matching: deep leakage, inverting gradients")
def test_a_client_of_one_record_is_read_without_protection_and_not_with_record_level_noise() -> None:
    plain = attacked(setting("plain"), 3, "quick")
    for one in plain:
        assert identified(one.originals, one.by_equality).all() and identified(one.originals, one.by_direction).all()
    # Noise names one of 900 pictures by luck, and is no copy of it: it never was in 40 tries.
    for one in attacked(setting("record-dp"), 3, "quick"):
        assert not identified(one.originals, one.guesses).any()


def test_masks_over_few_records_hide_whose_they_are_and_not_what_they_are() -> None:
    (one,) = attacked(setting("secagg"), 3, "quick")
    assert identified(one.originals, one.guesses).mean() > 0.5


@pytest.mark.attack("gradient matching of a sum")
def test_client_level_noise_hides_the_records_of_a_sum() -> None:
    (one,) = attacked(setting("client-dp"), 3, "quick")
    assert not identified(one.originals, one.guesses).any()


def test_under_encryption_there_is_no_gradient_to_match() -> None:
    (one,) = attacked(setting("ckks-unmasked"), 3, "quick")
    assert len(one.by_equality) == 1 and not identified(one.originals, one.guesses).any()


@pytest.mark.parametrize("way", [deep_leakage, inverting_gradients])
def test_both_ways_find_a_record_from_its_gradient(way: type(deep_leakage)) -> None:  # type: ignore[valid-type]
    module, rows = vector.build(model, 0), slice(7, 8)
    with one_thread():
        guess = way(module, seen(rows), 1, 200)
    assert psnr(pixels(RECORDS)[rows], guess) > 30


def test_the_last_bias_tells_the_labels_of_a_batch() -> None:
    rows = slice(0, 12)
    found = labels(vector.build(model, 0), seen(rows), 12)
    assert sorted(found.tolist()) == sorted(RECORDS.labels[rows].tolist())


def test_a_gradient_that_is_not_finite_gives_a_picture_all_the_same() -> None:
    broken = torch.full((len(vector.flatten(model())),), torch.nan)
    assert np.isfinite(deep_leakage(vector.build(model, 0), broken, 1, 5)).all()


def test_the_verdict_is_of_the_share() -> None:
    assert [verdict(share) for share in (1.0, 0.5, 0.2, 0.04, 0.0)] == ["red", "red", "amber", "green", "green"]
