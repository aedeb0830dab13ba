"""Marked models and the records that move them, through the gradients that training itself takes."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from securefl import vector
from securefl.audit.canaries import Marked, canary_alone, direction, marked, rows, unmarked, with_canaries
from securefl.data import Dataset
from securefl.privacy.mechanism import DPSGD
from securefl.privacy.noise import Words
from securefl.training.batches import take
from securefl.training.gradients import add_clipped
from securefl.training.private import Mode, Recorded, noised_sum, noises
from tests.securefl.training.test_private import QUIET

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # as in train, which says why

MODES: tuple[Mode, ...] = get_args(Mode)
CANARIES, CLASSES, CLIP = 5, 3, 0.25
CPU = torch.device("cpu")


def picture_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Tanh(), nn.Linear(8, CLASSES))


def pictures(count: int = 7) -> Dataset:
    generator = np.random.default_rng(4)
    return Dataset(
        generator.normal(size=(count, 1, 3, 3)).astype(np.float32), generator.integers(0, CLASSES, count), 40
    )


def module(seed: int = 1) -> Marked:
    built = vector.build(marked(picture_model, pictures(), CLASSES, CANARIES), seed)
    assert isinstance(built, Marked)
    return built


def clipped(of: Dataset, mode: Mode, at: Marked) -> NDArray[np.float64]:
    """The sum of these records' clipped gradients, flat, from the code that training runs."""
    recorded = Recorded(at, mode)
    total = torch.zeros(recorded.dimension, dtype=torch.float64)
    add_clipped(recorded.gradients(take(of, np.arange(len(of)), CPU)), CLIP, total)
    return total.numpy()


def test_a_marked_model_says_what_its_base_says_whatever_the_table_holds() -> None:
    of, data = module(), with_canaries(pictures(), np.ones(CANARIES, np.bool_))
    nn.init.normal_(of.table.weight, std=1e4)
    features = torch.from_numpy(data.features)
    plain = np.concatenate([pictures().features, np.zeros((CANARIES, 1, 3, 3), np.float32)])
    with torch.no_grad():
        torch.testing.assert_close(of(features), of.base(torch.from_numpy(plain)), rtol=0, atol=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [0, CANARIES - 1])
def test_a_clipped_canary_is_a_clip_along_the_direction_in_its_own_row(mode: Mode, number: int) -> None:
    at = module()
    found = clipped(canary_alone(pictures(), number), mode, at)
    expected = np.zeros((CANARIES, CLASSES))
    expected[number] = -CLIP * direction(at)  # what descends is the gradient's opposite
    np.testing.assert_allclose(rows(at, found), expected, atol=CLIP * 1e-5)
    assert CLIP * (1 - 1e-5) < np.linalg.norm(found) <= CLIP * (1 + 2**-17)


@pytest.mark.parametrize("mode", MODES)
def test_canaries_in_a_batch_of_others_have_a_row_each(mode: Mode) -> None:
    included, at = np.array([True, False, True, True, False]), module()
    found = rows(at, clipped(with_canaries(pictures(), included), mode, at))
    np.testing.assert_allclose(found @ -direction(at), CLIP * included, atol=CLIP * 1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_other_records_move_no_row_and_their_own_gradients_are_those_of_the_base(mode: Mode) -> None:
    at = module()
    found = clipped(unmarked(pictures()), mode, at)
    assert not rows(at, found).any()
    batch, base = take(pictures(), np.arange(7), CPU), at.base
    expected = torch.zeros(())
    for features, label in zip(*batch, strict=True):
        loss = nn.functional.cross_entropy(base(features[None]), label[None])
        own = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(base.parameters()))])
        expected = expected + own * min(1.0, CLIP / float(own.norm()))
    np.testing.assert_allclose(found[: len(expected)], expected.numpy(), atol=1e-4)


def test_rows_that_fill_a_batch_up_and_clients_without_a_canary_move_nothing() -> None:
    at = module()
    assert not rows(at, clipped(canary_alone(pictures(), -1), "ghost", at)).any()
    # One record in a batch that is filled up to 16; the noise is so small that the sum shows.
    at = module()
    recorded = Recorded(at, "ghost")
    batch = take(canary_alone(pictures(), 2), np.arange(1), CPU)
    noise = noises(DPSGD(QUIET, 1.0, 1, CLIP), recorded.dimension, Words("test", bytes_of_zeros))
    found = noised_sum(recorded, [batch], CLIP, noise).numpy()
    moved = np.linalg.norm(rows(at, found), axis=1)
    # Clipping aims 2^-15 below the clip.
    np.testing.assert_allclose(moved, [0, 0, CLIP, 0, 0], atol=CLIP * 1e-4)


def bytes_of_zeros(count: int) -> bytes:
    return bytes(count)


@given(st.lists(st.booleans(), min_size=1, max_size=CANARIES))
def test_the_canaries_that_are_there_are_those_that_were_told(coins: list[bool]) -> None:
    found = with_canaries(pictures(), np.array(coins))
    numbers = found.features[:, -1]
    assert numbers[7:].tolist() == [index + 1 for index, there in enumerate(coins) if there]
    assert not numbers[:7].any() and not found.features[7:, :-1].any() and not found.labels[7:].any()
    np.testing.assert_array_equal(found.features[:7, :-1], pictures().features.reshape(7, -1))
    assert found.declared_size == 40  # as if there were none
    assert found.features.dtype == np.float32


def test_the_direction_leaves_the_model_in_the_mode_that_it_was_in() -> None:
    for training in (True, False):
        at = module().train(training)
        along = direction(at)
        assert at.training is training
        np.testing.assert_allclose(np.linalg.norm(along), 1)
        assert along[0] > 0 > along[1:].max()
