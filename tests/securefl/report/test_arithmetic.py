"""Whatever is stated, the accountant's answer is figures or a reason."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.errors import BadInput
from securefl.privacy import accountant
from securefl.privacy.mechanism import DPSGD, NoisedSum, Release, Skellam, Unit
from securefl.report import arithmetic
from securefl.report.arithmetic import Figures, Unanswered, figures

DELTA = 1e-5


def test_figures_are_both_accountants() -> None:
    charged = [DPSGD(4.0, 0.5, 3)] * 10
    found = (accountant.epsilon(charged, DELTA), accountant.cross_check(charged, DELTA), "PLD")
    assert figures(charged, DELTA, "record") == Figures(*found)


def test_what_hides_no_client_has_no_epsilon_for_one() -> None:
    found = figures([DPSGD(4.0, 0.5, 3)], DELTA, "client")
    assert isinstance(found, Unanswered) and found.word == "none" and "hides one record" in found.why


def test_what_would_take_hours_is_not_computed() -> None:
    found = figures([DPSGD(1 + n / 1000, 0.123, 7) for n in range(arithmetic.MOST_KINDS + 1)], DELTA, "record")
    assert isinstance(found, Unanswered) and found.word == "unknown" and "201 different releases" in found.why


def test_a_delta_that_no_accountant_takes_is_no_error() -> None:
    found = figures([DPSGD(4.0, 0.5, 3)], math.nan, "record")
    assert isinstance(found, Unanswered) and found.word == "unknown"


@pytest.mark.parametrize("error", [OverflowError, ZeroDivisionError, ValueError, MemoryError])
def test_raw_errors_of_arithmetic_become_ours(error: type[Exception]) -> None:
    with pytest.raises(BadInput, match=rf"no accountant here .*\({error.__name__}"), arithmetic.explained():
        raise error


noises = st.sampled_from([1e-300, 1e-200, 1e-10, 1.0, 1e6])
scales = st.sampled_from([1e-300, 1.0, 2.0**62])
counts = st.sampled_from([1, 2**62])
odd = st.one_of(
    st.builds(DPSGD, noises, st.just(1.0), st.sampled_from([1, 10**9])),
    st.builds(NoisedSum, st.just("metrics"), noises, scales),
    st.builds(Skellam, st.sampled_from(["update", "clipped"]), noises, scales, counts, counts),
)


@settings(max_examples=40)
@given(charged=st.lists(odd, max_size=3), unit=st.sampled_from(["record", "client"]))
def test_the_most_extreme_charges_have_an_answer(charged: list[Release], unit: Unit) -> None:
    found = figures(charged * 3, DELTA, unit)
    assert isinstance(found, Unanswered) or 0 <= found.epsilon <= math.inf
