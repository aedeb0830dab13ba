from __future__ import annotations

import pytest

from securefl.audit.bounds import headline
from securefl.audit.bounds.bound import Bound
from securefl.errors import BadInput


def bound(method: str, epsilon: float, confidence: float | None = 0.99) -> Bound:
    return Bound(method, epsilon, 1e-5, confidence, "all", "estimate" if confidence is None else "bound", "here")


def test_the_named_bound_is_the_headline_however_large_others_are() -> None:
    bounds = [bound("one", 1.0), bound("other", 5.0)]
    assert headline.named(bounds, "one") is bounds[0]


def test_a_bound_that_is_not_there_or_there_twice_is_no_headline() -> None:
    for bounds in ([], [bound("one", 1.0), bound("one", 2.0)]):
        with pytest.raises(BadInput, match="name it before the run"):
            headline.named(bounds, "one")


def test_an_estimate_is_no_headline() -> None:
    with pytest.raises(BadInput, match="estimate"):
        headline.named([bound("one", 9.0, None)], "one")
    with pytest.raises(BadInput, match="estimate"):
        headline.largest([bound("one", 9.0, None)])


def test_a_bound_that_is_less_sure_than_asked_is_refused() -> None:
    with pytest.raises(BadInput, match="split the levels"):
        headline.named([bound("one", 1.0, 0.95)], "one")


def test_the_largest_of_several_counts_if_the_level_was_split() -> None:
    share = headline.split(3)
    bounds = [bound("one", 1.0, share), bound("two", 3.0, share), bound("three", 2.0, share), bound("four", 9.0, None)]
    assert headline.largest(bounds) is bounds[1]


def test_the_largest_of_several_that_each_take_the_whole_level_is_refused() -> None:
    with pytest.raises(BadInput, match=r"up to 0\.02, more than a confidence of 0\.99 allows"):
        headline.largest([bound("one", 1.0), bound("two", 3.0)])


def test_levels_may_be_split_unequally() -> None:
    assert headline.largest([bound("one", 1.0, 0.991), bound("two", 3.0, 0.999)]).method == "two"


def test_no_bounds_share_no_level() -> None:
    with pytest.raises(BadInput, match="at least one"):
        headline.split(0)
