from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.degree import Sparse, parameters
from protocols.errors import ConfigurationError
from protocols.graph import LARGEST_COMPLETE, CohortRules, Graph, two_thirds

# 20 bits of security make small degrees: 34 of 119.
SPARSE = Sparse(0.1, 0.1, 20, 10)
RULES = CohortRules(sparse=SPARSE)
sizes = st.integers(LARGEST_COMPLETE + 1, 400)
keys = st.binary(min_size=32, max_size=32)


def members(count: int) -> tuple[str, ...]:
    return tuple(f"m{i:03}" for i in range(count))


def key(number: int) -> bytes:
    return sha256(number.to_bytes(4, "big")).digest()


# ---- thresholds


@pytest.mark.parametrize(
    ("cohort", "threshold"), [(3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (10, 7), (99, 67), (100, 67)]
)
def test_the_default_threshold_is_two_thirds_and_one(cohort: int, threshold: int) -> None:
    assert CohortRules().threshold_for(cohort) == threshold


@given(st.integers(0, 60), st.data())
def test_accepted_thresholds_hold_against_an_active_server(colluders: int, data: st.DataObject) -> None:
    """Two survivor sets of t signatures share an honest client, and no sum has fewer than two honest contributors."""
    minimum = data.draw(st.integers(max(3, 3 * colluders + 1), 200))
    cohort = data.draw(st.integers(minimum, 250))
    t = CohortRules(minimum, None, colluders, sparse=None).threshold_for(cohort)
    assert 2 * t - cohort > colluders
    assert 2 <= t - colluders <= cohort


@given(st.integers(3, 60), st.integers(-3, 70), st.integers(0, 25))
def test_a_chosen_threshold_is_taken_exactly_if_it_is_safe(cohort: int, threshold: int, colluders: int) -> None:
    rules_stand = 3 * colluders < cohort
    safe = threshold <= cohort and 2 * threshold > cohort + colluders and threshold - colluders >= 2
    if rules_stand and safe:
        assert CohortRules(cohort, threshold, colluders).threshold_for(cohort) == threshold
    else:
        with pytest.raises(ConfigurationError):
            CohortRules(cohort, threshold, colluders).threshold_for(cohort)


def test_a_threshold_above_the_cohort_or_too_low_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="threshold 11 is above the cohort of 10"):
        CohortRules(threshold=11).threshold_for(10)
    with pytest.raises(ConfigurationError, match="between 6 and 10"):
        CohortRules(threshold=5).threshold_for(10)


@pytest.mark.parametrize("arguments", [(2,), (0,), (3, None, 1), (9, None, 3), (3, None, -1)])
def test_rules_that_protect_nobody_are_refused(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError):
        CohortRules(*arguments)


@pytest.mark.parametrize("cohort", [4, LARGEST_COMPLETE + 20])
def test_a_cohort_below_the_minimum_is_refused(cohort: int) -> None:
    with pytest.raises(ConfigurationError, match="below the minimum"):
        CohortRules(minimum=cohort + 1).threshold_for(cohort)
    with pytest.raises(ConfigurationError, match="below the minimum"):
        CohortRules(minimum=cohort + 1).graph(members(cohort), bytes(32))


def test_the_smallest_cohort_counts_the_threshold_too() -> None:
    assert CohortRules(minimum=3).fewest == 3
    assert CohortRules(minimum=3, threshold=7).fewest == 7
    assert CohortRules(minimum=8, threshold=7).fewest == 8


# ---- which graph


@given(st.integers(3, LARGEST_COMPLETE), keys)
def test_up_to_a_hundred_everybody_is_a_neighbour_and_everybody_a_holder(count: int, digest: bytes) -> None:
    graph, everyone = RULES.graph(members(count), digest), members(count)
    assert graph.complete and RULES.complete(count) and graph.degree == RULES.degree_for(count) == count - 1
    for me in everyone:
        assert graph.neighbours(me) == tuple(name for name in everyone if name != me)
        assert graph.holders(me) == everyone
    assert (graph.threshold, graph.tolerated) == (two_thirds(count), count - two_thirds(count))
    assert graph.least == graph.quorum == graph.threshold


def test_the_graph_becomes_sparse_beyond_a_hundred() -> None:
    assert LARGEST_COMPLETE == 100
    assert RULES.complete(100) and not RULES.complete(101)
    assert RULES.graph(members(100), key(1)).complete and not RULES.graph(members(101), key(1)).complete


@pytest.mark.parametrize("rules", [CohortRules(sparse=None), CohortRules(threshold=101), CohortRules(3, 150)])
def test_without_assumptions_or_with_a_threshold_the_graph_is_complete_at_any_size(rules: CohortRules) -> None:
    graph = rules.graph(members(150), key(1))
    assert graph.complete and len(graph.neighbours("m000")) == 149
    assert graph.threshold == graph.least == graph.quorum == (rules.threshold or two_thirds(150))


@settings(max_examples=20)
@given(sizes, keys)
def test_a_sparse_graph_is_regular_and_symmetric(count: int, digest: bytes) -> None:
    graph, expected = RULES.graph(members(count), digest), parameters(count, SPARSE)
    assert (graph.degree, graph.threshold) == (expected.degree, expected.threshold)
    assert graph.degree == RULES.degree_for(count) < count - 1 and not graph.complete
    assert graph.tolerated == graph.degree - graph.threshold
    near = {me: graph.neighbours(me) for me in members(count)}
    for me, neighbours in near.items():
        assert neighbours == tuple(sorted(set(neighbours))) and me not in neighbours
        assert len(neighbours) == graph.degree
        assert all(me in near[other] for other in neighbours)
        assert graph.holders(me) == neighbours  # nobody holds a share of its own


@settings(max_examples=10)
@given(st.integers(3, 300), keys, st.data())
def test_every_neighbour_has_a_place_of_its_own_behind_the_commitment(
    count: int, digest: bytes, data: st.DataObject
) -> None:
    graph = RULES.graph(members(count), digest)
    dealer = data.draw(st.sampled_from(members(count)))
    places = [graph.place(dealer, holder) for holder in graph.neighbours(dealer)]
    assert places == list(range(1, graph.degree + 1))
    with pytest.raises(ValueError):
        graph.place(dealer, dealer)


@settings(max_examples=20)
@given(sizes, keys)
def test_neighbours_follow_from_the_key_list_alone(count: int, digest: bytes) -> None:
    """Two parties that never spoke find the same graph: the rules and the list are all that it is made of."""
    one = RULES.graph(members(count), digest)
    other = CohortRules(sparse=Sparse(0.1, 0.1, 20, 10)).graph(members(count), bytes(digest))
    assert one == other
    assert all(one.neighbours(me) == other.neighbours(me) for me in members(count)[::10])


@settings(max_examples=20)
@given(sizes, keys, keys)
def test_another_key_list_makes_another_graph(count: int, one: bytes, other: bytes) -> None:
    """Two orders of 101 or more agree by chance less often than SHA-256 collides."""
    graphs = [RULES.graph(members(count), digest) for digest in (one, other)]
    assert (graphs[0].ring == graphs[1].ring) == (one == other)
    assert sorted(graphs[0].ring) == sorted(graphs[1].ring) == list(members(count))


def test_every_pair_is_joined_about_equally_often() -> None:
    """300 key lists of 101: a pair is joined in 32 of 100. False alarm below 1e-8 for all 5050 pairs (Hoeffding)."""
    joined = {(a, b): 0 for a in members(101) for b in members(101) if a < b}
    degree = RULES.degree_for(101)
    for number in range(300):
        graph = RULES.graph(members(101), key(number))
        for me in members(101):
            for other in graph.neighbours(me):
                if me < other:
                    joined[me, other] += 1
    # exp(-2 * 300 * 0.22**2) = 2.4e-13 on either side of each of 5050 pairs: 2.5e-9.
    assert all(abs(times / 300 - degree / 100) < 0.22 for times in joined.values())


def connected(graph: Graph, left: set[str]) -> bool:
    reached, ahead = set(), [next(iter(left))]
    while ahead:
        if (me := ahead.pop()) not in reached:
            reached.add(me)
            ahead += left.intersection(graph.neighbours(me))
    return reached == left


@settings(max_examples=10)
@given(st.integers(101, 250), st.integers(0, 10_000))
def test_who_is_left_of_a_sparse_graph_is_connected(count: int, seed: int) -> None:
    """As many are gone as may be corrupt or drop out: false alarm 10 * 2**-21, by sigma = 20."""
    graph = RULES.graph(members(count), key(seed))
    everyone = set(members(count))
    assert connected(graph, everyone)
    gone = np.random.default_rng(seed).permutation(members(count))[: SPARSE.corrupted(count) + SPARSE.dropped(count)]
    assert connected(graph, everyone.difference(gone))


# ---- how many it takes


MANY = CohortRules(121, None, 40, SPARSE)


def test_more_colluders_than_any_ring_withstands_are_refused_with_the_number_that_one_does() -> None:
    with pytest.raises(ConfigurationError, match=r"colluders=40; the largest that is, all else equal: .*colluders=39"):
        MANY.threshold_for(123)
    with pytest.raises(ConfigurationError, match="colluders=40"):
        MANY.graph(members(123), key(1))


@pytest.mark.parametrize(
    ("rules", "count"),
    [
        (CohortRules(118, None, 39, SPARSE), 123),
        (MANY, 124),
        (CohortRules(121, None, 40, None), 123),
        (CohortRules(121, 90, 40, SPARSE), 123),  # complete, by its threshold
    ],
)
def test_as_many_as_one_withstands_or_on_the_complete_graph_are_not(rules: CohortRules, count: int) -> None:
    graph = rules.graph(members(count), key(1))
    assert graph.threshold == rules.threshold_for(count)


@given(sizes, st.integers(3, 300))
def test_on_a_sparse_graph_a_sum_needs_all_but_the_assumed_dropouts(count: int, minimum: int) -> None:
    rules = CohortRules(minimum, sparse=SPARSE)
    assert rules.least(count) == max(minimum, count - SPARSE.dropped(count))
    assert CohortRules(sparse=Sparse(0.1, 0, 20, 10)).least(count) == count


@given(st.integers(3, 100), st.data())
def test_on_the_complete_graph_a_sum_needs_the_threshold_and_the_minimum(count: int, data: st.DataObject) -> None:
    minimum = data.draw(st.integers(3, count))
    rules = CohortRules(minimum, sparse=SPARSE)
    assert rules.least(count) == max(minimum, two_thirds(count)) and rules.quorum(count) == two_thirds(count)


@given(st.integers(101, 2000), st.data())
def test_two_quorums_of_a_sparse_cohort_share_an_honest_client(count: int, data: st.DataObject) -> None:
    """Whatever the number of colluders that the rules allow: fewer than a third."""
    colluders = data.draw(st.integers(0, (count - 1) // 3))
    rules = CohortRules(max(3, 3 * colluders + 1), None, colluders, SPARSE)
    assert not rules.complete(count)
    assert rules.quorum(count) == two_thirds(count) and 2 * rules.quorum(count) - count > colluders


def test_a_graph_says_what_its_rules_say() -> None:
    rules = CohortRules(49, sparse=SPARSE)
    graph = rules.graph(members(120), key(1))
    assert (graph.least, graph.quorum) == (rules.least(120), rules.quorum(120)) == (108, 81)
    assert (graph.degree, graph.threshold, graph.tolerated) == (34, 24, 10)


@pytest.mark.parametrize("colluders", [0, 2, 5, 20])
def test_named_colluders_cost_neighbours_and_leave_one_sum(colluders: int) -> None:
    """The condition of theorem 3 in docs/secagg.md, for colluders wherever they stand."""
    rules = CohortRules(3 * colluders + 3, colluders=colluders, sparse=SPARSE)
    k, t = rules.degree_for(150), rules.threshold_for(150)
    assert k >= CohortRules(sparse=SPARSE).degree_for(150)
    assert 3 * t >= 2 * k + 2 * colluders + 2
    assert 2 * t >= k + 2 * colluders + 4


@pytest.mark.parametrize(
    ("cohort", "roster", "tags"),
    [(4, 9, 5), (9, 9, 7), (5, 5, 4), (3, 5, 3), (120, 120, 81), (120, 150, 81), (120, 200, 101), (100, 200, 101)],
)
def test_a_model_is_settled_by_a_quorum_and_a_majority_of_the_roster(cohort: int, roster: int, tags: int) -> None:
    assert CohortRules().binding(cohort, roster) == tags


@pytest.mark.parametrize(
    ("minimum", "cohort", "roster", "colluders", "tags"),
    [(4, 4, 7, 0, 4), (4, 4, 7, 1, 5), (7, 7, 20, 2, 12), (7, 20, 20, 2, 14), (7, 7, 21, 2, 12)],
)
def test_colluders_cost_a_model_more_equal_tags(
    minimum: int, cohort: int, roster: int, colluders: int, tags: int
) -> None:
    assert CohortRules(minimum, None, colluders).binding(cohort, roster) == tags


@given(st.data())
def test_no_two_models_are_settled_though_colluders_sign_both(data: st.DataObject) -> None:
    """Two sets of so many of one roster share more than the colluders; and the honest ones can settle one."""
    colluders = data.draw(st.integers(0, 40))
    rules = CohortRules(max(3, 3 * colluders + 1), None, colluders, None)
    roster = data.draw(st.integers(rules.minimum, 300))
    tags = rules.binding(data.draw(st.integers(rules.minimum, roster)), roster)
    assert 2 * tags - roster > colluders and tags <= roster - colluders


def test_a_chosen_threshold_is_the_quorum_too() -> None:
    rules = CohortRules(3, 110)
    assert rules.quorum(150) == rules.binding(150, 150) == rules.least(150) == 110
