from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from securefl.errors import BadInput
from securefl.partition import Rows, dirichlet, even, shards

TEN_CLASSES = np.repeat(np.arange(10), 100)


def skew(labels: NDArray[np.int64], split: list[Rows]) -> float:
    """The mean total-variation distance between a client's labels and everyone's."""
    everyone = np.bincount(labels) / len(labels)
    own = [np.bincount(labels[rows], minlength=len(everyone)) / len(rows) for rows in split]
    return float(np.mean([np.abs(share - everyone).sum() / 2 for share in own]))


def holds_every_row_once(split: list[Rows], count: int) -> bool:
    return sorted(np.concatenate(split).tolist()) == list(range(count))


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=200),
    clients=st.integers(1, 8),
    alpha=st.floats(0.001, 1000),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_dirichlet_split_is_disjoint_and_complete(labels: list[int], clients: int, alpha: float, seed: int) -> None:
    try:
        split = dirichlet(np.array(labels), clients, alpha, seed)
    except BadInput as error:
        assert "leaves a client without rows" in str(error)
        assume(False)
    assert len(split) == clients
    assert all(len(rows) > 0 for rows in split)
    assert holds_every_row_once(split, len(labels))


def test_a_smaller_alpha_skews_labels_more() -> None:
    by_alpha = [skew(TEN_CLASSES, dirichlet(TEN_CLASSES, 5, alpha, seed=3)) for alpha in (1000.0, 1.0, 0.1)]
    assert by_alpha == sorted(by_alpha)
    assert by_alpha[0] < 0.05
    assert by_alpha[-1] > 0.4


def test_a_large_alpha_makes_clients_equal_in_size() -> None:
    sizes = [len(rows) for rows in dirichlet(TEN_CLASSES, 5, 1e6, seed=0)]
    assert max(sizes) - min(sizes) <= 10


def test_a_committed_seed_fixes_the_dirichlet_split() -> None:
    one, two, other = (dirichlet(TEN_CLASSES, 5, 1.0, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert [len(rows) for rows in one] == [224, 201, 215, 95, 265]


@pytest.mark.parametrize(("clients", "alpha"), [(0, 1.0), (3, 0.0), (3, -1.0), (3, float("nan"))])
def test_an_impossible_dirichlet_split_is_refused(clients: int, alpha: float) -> None:
    with pytest.raises(BadInput, match="alpha > 0"):
        dirichlet(TEN_CLASSES, clients, alpha, 0)


def test_a_client_without_rows_is_refused() -> None:
    with pytest.raises(BadInput, match="raise alpha or take another seed"):
        dirichlet(np.array([0, 1]), 5, 1.0, 0)


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=200),
    clients=st.integers(1, 8),
    hand=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_shard_split_is_disjoint_complete_and_even(labels: list[int], clients: int, hand: int, seed: int) -> None:
    assume(clients * hand <= len(labels))
    split = shards(np.array(labels), clients, hand, seed)
    assert holds_every_row_once(split, len(labels))
    sizes = [len(rows) for rows in split]
    assert max(sizes) - min(sizes) <= hand


def test_two_shards_a_client_show_it_at_most_two_labels() -> None:
    # McMahan et al.: 100 clients, 200 shards; here the shard size divides the class size, so each shard has one label
    split = shards(TEN_CLASSES, 100, 2, seed=0)
    seen = [len(np.unique(TEN_CLASSES[rows])) for rows in split]
    assert {len(rows) for rows in split} == {10}
    assert max(seen) == 2


def test_a_committed_seed_fixes_the_shard_split() -> None:
    one, two, other = (shards(TEN_CLASSES, 5, 2, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("clients", "hand"), [(0, 2), (2, 0), (501, 2)])
def test_an_impossible_shard_split_is_refused(clients: int, hand: int) -> None:
    with pytest.raises(BadInput, match="use fewer"):
        shards(TEN_CLASSES, clients, hand, 0)


@pytest.mark.parametrize("split", [lambda rows: dirichlet(rows, 3, 1.0, 4), lambda rows: shards(rows, 3, 2, 4)])
def test_indices_are_sorted_integers(split: Callable[[NDArray[np.int64]], list[Rows]]) -> None:
    for rows in split(TEN_CLASSES):
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()


def test_an_even_split_shares_every_row_out_once() -> None:
    parts = even(23, 5, seed=3)
    assert sorted(np.concatenate(parts).tolist()) == list(range(23))
    assert [len(part) for part in parts] == [5, 5, 5, 4, 4]
    assert not np.array_equal(np.concatenate(parts), np.arange(23))  # shuffled


@pytest.mark.parametrize("clients", [0, 4])
def test_an_even_split_leaves_nobody_without_rows(clients: int) -> None:
    with pytest.raises(BadInput, match="each needs at least one"):
        even(3, clients, seed=0)
