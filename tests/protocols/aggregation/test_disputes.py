"""Whom disputes about shares cost a place, when nobody can tell which of two is lying."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hypothesis import given
from hypothesis import strategies as st

from protocols.aggregation.disputes import suspects
from protocols.base import ClientId
from tests.protocols.cohort import names

NAMES = names(12)
clients = st.sampled_from(NAMES)
# Of each dealer, who complains about it; nobody about itself.
disputed = st.dictionaries(clients, st.sets(clients), max_size=12).map(
    lambda given: {dealer: complainers - {dealer} for dealer, complainers in given.items()}
)


def pairs(disputes: Mapping[ClientId, Collection[ClientId]]) -> set[frozenset[ClientId]]:
    return {frozenset({dealer, name}) for dealer, complainers in disputes.items() for name in complainers}


@given(disputed)
def test_no_dispute_is_left_between_two_who_stay(disputes: dict[ClientId, set[ClientId]]) -> None:
    gone = suspects(disputes)
    assert all(pair & gone for pair in pairs(disputes))


@given(disputed)
def test_nobody_goes_who_is_in_no_dispute(disputes: dict[ClientId, set[ClientId]]) -> None:
    assert suspects(disputes) <= frozenset().union(*pairs(disputes))


@given(disputed, st.permutations(NAMES))
def test_names_decide_nothing(disputes: dict[ClientId, set[ClientId]], others: list[ClientId]) -> None:
    renamed = dict(zip(NAMES, others, strict=True))
    again = {renamed[dealer]: {renamed[name] for name in found} for dealer, found in disputes.items()}
    assert suspects(again) == {renamed[name] for name in suspects(disputes)}


@given(disputed)
def test_dealer_and_complainer_are_believed_alike(disputes: dict[ClientId, set[ClientId]]) -> None:
    reversed_ = {name: {dealer for dealer, found in disputes.items() if name in found} for name in NAMES}
    assert suspects(reversed_) == suspects(disputes)


@given(clients, st.sets(clients, min_size=3))
def test_one_bad_dealer_about_whom_two_or_more_complain_is_left_out_alone(
    dealer: ClientId, cheated: set[ClientId]
) -> None:
    assert suspects({dealer: cheated - {dealer}}) == {dealer}


@given(clients, st.sets(clients, min_size=3))
def test_one_liar_about_two_or_more_dealers_is_left_out_alone(liar: ClientId, accused: set[ClientId]) -> None:
    assert suspects({dealer: {liar} for dealer in accused - {liar}}) == {liar}


@given(st.sets(clients, min_size=2, max_size=2))
def test_a_single_dispute_costs_both(two: set[ClientId]) -> None:
    dealer, complainer = sorted(two)
    assert suspects({dealer: {complainer}}) == two == suspects({complainer: {dealer}})


@given(st.integers(1, 5), st.data())
def test_liars_who_each_dispute_with_more_honest_clients_than_there_are_liars_go_and_nobody_else(
    count: int, data: st.DataObject
) -> None:
    """Bad dealers and lying complainers in any mixture, and whatever they say about each other."""
    liars, honest = NAMES[:count], NAMES[count:]
    disputes: dict[ClientId, set[ClientId]] = {}
    for liar in liars:
        for victim in data.draw(st.sets(st.sampled_from(honest), min_size=count + 1)):
            dealer, complainer = (liar, victim) if data.draw(st.booleans()) else (victim, liar)
            disputes.setdefault(dealer, set()).add(complainer)
        for other in data.draw(st.sets(st.sampled_from(liars))) - {liar}:
            disputes.setdefault(liar, set()).add(other)
    assert suspects(disputes) == set(liars)


def test_two_liars_about_one_honest_dealer_look_like_two_whom_it_cheated() -> None:
    """A limit, not a promise: they cost it its place, and keep theirs."""
    assert suspects({"c0": {"c1", "c2"}}) == {"c0"}


def test_without_disputes_nobody_goes() -> None:
    assert suspects({}) == suspects({"c0": set()}) == frozenset()
