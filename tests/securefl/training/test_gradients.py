from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from securefl.training.gradients import Entries, Gradients, Products, Stack, add_clipped

RECORDS, HEIGHT = 6, 5


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def products(seed: int = 0, scale: float = 1.0) -> Products:
    drawn = generator(seed)
    return Products(torch.randn(RECORDS, 4, generator=drawn) * scale, torch.randn(RECORDS, 70, generator=drawn) * scale)


def entries(seed: int = 0, scale: float = 1.0) -> Entries:
    """Each record has three places, often the same one twice."""
    drawn = generator(seed)
    places = torch.randint(0, HEIGHT, (RECORDS, 3), generator=drawn)
    return Entries.gathered(places, torch.randn(RECORDS, 3, 60, generator=drawn) * scale, HEIGHT)


def in_full(gradients: Products | Entries) -> Stack:
    """The same gradients, each record's own."""
    if isinstance(gradients, Products):
        return Stack(gradients.left[:, :, None] * gradients.right[:, None, :])
    rows = torch.zeros(RECORDS, gradients.height, gradients.rows.shape[1])
    rows[gradients.owners, gradients.places] = gradients.rows
    return Stack(rows)


def clipped(gradients: Sequence[Gradients], clip: float) -> torch.Tensor:
    total = torch.zeros(sum(one.size for one in gradients), dtype=torch.float64)
    add_clipped(gradients, clip, total)
    return total


Form = Callable[..., Products | Entries]
FORMS: list[Form] = [products, entries]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_a_form_has_the_norms_and_the_sum_of_the_gradients_in_full(form: Form, scale: float) -> None:
    small = form(1, scale)
    full = in_full(small)
    weights = torch.linspace(0, 1, RECORDS, dtype=torch.float64)
    assert (small.records, small.size) == (full.records, full.size)
    torch.testing.assert_close(small.squares(), full.squares(), rtol=1e-5, atol=1e-30)
    sums = torch.ones(2, small.size, dtype=torch.float64)
    pair: tuple[Gradients, Gradients] = (small, full)
    for one, total in zip(pair, sums, strict=True):
        one.add_weighted(weights, total)
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-6, atol=1e-6 * scale**2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_record_that_is_not_finite_adds_nothing_and_the_others_stay(form: Form, poison: float) -> None:
    poisoned, clean = form(2), form(2)
    (poisoned.left if isinstance(poisoned, Products) else poisoned.rows)[-1, 0] = poison
    expected = clipped([clean.silenced(torch.arange(RECORDS) == RECORDS - 1)], 0.5)
    for one in (poisoned, in_full(poisoned)):
        torch.testing.assert_close(clipped([one], 0.5), expected, rtol=1e-5, atol=1e-7)


def test_a_product_past_float32_silences_its_record_in_both_forms() -> None:
    """Its factors are finite, and so is their product in float64: yet the gradient that the hooks bring is not."""
    factors = Products(torch.tensor([[1e30, 1.0], [1.0, 1.0]]), torch.tensor([[1e30], [1.0]]))
    for one in (factors, Stack(factors.left[:, :, None] * factors.right[:, None, :])):
        torch.testing.assert_close(clipped([one], 1.0), torch.full((2,), 0.5**0.5, dtype=torch.float64))


def test_one_parameter_that_is_not_finite_silences_the_record_in_all() -> None:
    fine, broken = torch.ones(2, 3), torch.ones(2, 1)
    broken[1] = math.nan
    assert clipped([Stack(fine), Stack(broken)], 10.0).tolist() == [1.0] * 4


@given(st.integers(0, 2**32), st.sampled_from([1e-30, 1e-9, 1.0, 1e15]), st.sampled_from([1e-9, 1.0, 1e9]))
def test_a_record_adds_at_most_the_clip(seed: int, scale: float, clip: float) -> None:
    drawn = generator(seed)
    one: list[Gradients] = [Stack(torch.randn(1, size, generator=drawn) * scale) for size in (3, 128, 1000)]
    one.append(Products(torch.randn(1, 4, generator=drawn) * scale, torch.randn(1, 9, generator=drawn)))
    length = float(clipped(one, clip).norm())
    assert 0 < length <= clip * (1 + 2**-17)


def test_a_clip_below_what_float32_can_square_still_bounds() -> None:
    """1e-25 squared is 0 in float32: measured so, the gradient would pass whole."""
    assert float(clipped([Stack(torch.full((1, 300), 1e-25))], 1e-27).norm()) <= 1e-27


def test_a_gradient_past_what_float32_can_square_is_clipped_and_not_dropped() -> None:
    assert float(clipped([Stack(torch.full((1, 300), 1e30))], 1.0).norm()) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.attack("a gradient of many equal entries")
def test_a_long_gradient_of_equal_entries_is_not_measured_short() -> None:
    """A float32 sum of 2e7 equal squares stands still before its end, and clipping by it lets 1.7 % more through."""
    row = torch.full((1, 20_000_000), 1.03)
    exact = float(row[0, 0]) * math.sqrt(row.numel())
    assert exact / float(row.norm()) > 1.01
    assert exact / float(Stack(row).squares().sqrt()) <= 1 + 2**-17


def test_equal_places_of_a_record_add_up_before_they_are_squared() -> None:
    found = Entries.gathered(torch.tensor([[2, 2], [0, 1]]), torch.ones(2, 2, 1), 3)
    assert found.squares().tolist() == [4.0, 2.0]
    assert clipped([found], 1e9).tolist() == [1.0, 1.0, 2.0]
