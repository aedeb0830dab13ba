from __future__ import annotations

import re
from fractions import Fraction
from itertools import combinations
from math import comb, inf, log2

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.stats import binom, hypergeom

from protocols.degree import Parameters, Server, Sparse, log2_disconnected, log2_tail, parameters
from protocols.errors import ConfigurationError

HONEST, MALICIOUS = Server.SEMI_HONEST, Server.SEMI_MALICIOUS

servers = st.sampled_from(Server)
# Weak demands, so that graphs of a few dozen clients are neither complete nor trivial.
weak = st.builds(
    Sparse,
    corrupt=st.integers(0, 30).map(lambda p: p / 100),
    dropout=st.integers(0, 30).map(lambda p: p / 100),
    sigma=st.integers(1, 12),
    eta=st.integers(1, 8),
)


@pytest.mark.parametrize(
    ("clients", "fraction", "sigma", "server", "degree", "threshold"),
    [
        (100, (0.05, 0.05), 40, HONEST, 12, 6),
        (1_000, (0.05, 0.05), 40, HONEST, 30, 17),
        (10_000, (0.05, 0.05), 40, HONEST, 34, 20),
        (100, (0.1, 0.1), 40, MALICIOUS, 32, 22),
        (1_000, (0.1, 0.1), 40, MALICIOUS, 96, 67),
        (10_000, (0.1, 0.1), 40, MALICIOUS, 122, 85),
        (1_000, (0.2, 0.3), 40, MALICIOUS, 642, 409),
        (1_000, (0.1, 0.1), 128, MALICIOUS, 144, 107),
        (10_000, (0.1, 0.1), 128, MALICIOUS, 196, 146),
        # From the tests of the authors' implementation, where gamma n and delta n are whole.
        (1_000, (0.45, 0.45), 40, HONEST, 822, 417),
        (10_000, (0.3, 0.3), 40, MALICIOUS, 4822, 3230),
        (1_000_000, (0.3, 0.3), 40, MALICIOUS, 11136, 7454),
        (1_000, (0.33, 0.05), 40, HONEST, 78, 60),
        (1_000, (0.05, 0.33), 40, MALICIOUS, 398, 223),
        (100, (0.33, 0.05), 40, MALICIOUS, 42, 37),
    ],
)
def test_published_values_are_reproduced(
    clients: int, fraction: tuple[float, float], sigma: int, server: Server, degree: int, threshold: int
) -> None:
    assert parameters(clients, Sparse(*fraction, sigma, 20), server) == Parameters(degree, threshold)


def test_without_a_choice_the_server_is_active_and_the_seed_is_ground() -> None:
    assert (
        parameters(1_000, Sparse()) == parameters(1_000, Sparse(0.1, 0.1, 128, 20), MALICIOUS) == Parameters(144, 107)
    )


@given(st.integers(4, 60), weak, servers)
def test_the_degree_is_the_smallest_even_one_by_exact_arithmetic(
    clients: int, assumptions: Sparse, server: Server
) -> None:
    """Against fractions without rounding; the loosened run allows for a bound that is met to within 1e-6."""
    exact = _by_definition(clients, assumptions, server, Fraction(1))
    loosened = _by_definition(clients, assumptions, server, 1 - Fraction(1, 10**6))
    found = _or_none(clients, assumptions, server)
    assert found in (exact, loosened)
    if found is not None:
        assert exact is not None
        assert exact.degree <= found.degree


@pytest.mark.parametrize("server", Server)
@pytest.mark.parametrize(("clients", "fractions"), [(300, (0.1, 0.2)), (301, (0.05, 0.07)), (1_000, (0.1, 0.1))])
def test_the_real_strength_is_reached_by_exact_arithmetic(
    server: Server, clients: int, fractions: tuple[float, float]
) -> None:
    assumptions = Sparse(*fractions)
    found = parameters(clients, assumptions, server)
    assert _exactly_safe(clients, found, assumptions, server, Fraction(1))
    fewer = Parameters(found.degree, found.threshold - 1)
    assert not _exactly_safe(clients, fewer, assumptions, server, Fraction(1))


@given(st.integers(2, 400), st.data())
def test_a_tail_agrees_with_scipy(population: int, data: st.DataObject) -> None:
    marked, drawn = data.draw(st.integers(1, population - 1)), data.draw(st.integers(1, population - 1))
    least = data.draw(st.integers(marked * drawn // population + 1, min(marked, drawn)))
    reference = float(hypergeom.sf(least - 1, population, marked, drawn))
    assert 2 ** log2_tail(population, marked, drawn, least) == pytest.approx(reference, rel=1e-6, abs=1e-250)


@pytest.mark.parametrize(("sigma", "degree"), [(9, 10), (10, 12)])
def test_connectivity_takes_half_of_the_failures_allowed(sigma: int, degree: int) -> None:
    """Without corrupt clients only connectivity is left to decide."""
    assert -11 < log2_disconnected(60, 18, 10) < -10
    assert parameters(60, Sparse(0, 0.3, sigma, 1), HONEST).degree == degree


@given(st.integers(1, 400), st.data())
def test_a_tail_is_never_below_the_exact_one_and_hardly_above(population: int, data: st.DataObject) -> None:
    marked, drawn = data.draw(st.integers(0, population)), data.draw(st.integers(0, population))
    least = data.draw(st.integers(0, min(marked, drawn)))
    exact = _log2(_tail(population, marked, drawn, least))
    bound = log2_tail(population, marked, drawn, least)
    if least * population <= marked * drawn:
        assert bound == 0.0
    else:
        assert exact <= bound <= exact + 1e-7


@pytest.mark.parametrize(
    ("marked", "drawn", "least"), [(1_000, 196, 97), (1_000, 122, 30), (3_000, 4_822, 1_700), (2_500, 9_000, 2_251)]
)
def test_a_tail_of_ten_thousand_clients_is_an_upper_bound_to_a_millionth_of_a_bit(
    marked: int, drawn: int, least: int
) -> None:
    exact = _log2(_tail(10_000, marked, drawn, least))
    assert exact < log2_tail(10_000, marked, drawn, least) < exact + 1e-6


def test_what_cannot_happen_has_no_probability() -> None:
    assert log2_tail(10, 3, 5, 4) == -inf
    assert log2_disconnected(10, 3, 4) == -inf
    assert log2_disconnected(5, 5, 4) == -inf


@given(st.integers(4, 11), st.data())
def test_random_removals_disconnect_no_more_often_than_the_bound_says(clients: int, data: st.DataObject) -> None:
    """All removals are tried. On so few clients every pair of windows counts, so that a pair too few is noticed."""
    degree = data.draw(st.sampled_from(range(2, clients - 1, 2)))
    removed = data.draw(st.integers(0, clients))
    fallen = sum(not _connected(clients, degree, set(gone)) for gone in combinations(range(clients), removed))
    probability = fallen / comb(clients, removed)
    assert probability <= 2 ** log2_disconnected(clients, removed, degree) <= 1


@pytest.mark.parametrize(("clients", "degree"), [(8, 2), (9, 4), (10, 6)])
def test_the_bound_on_disconnection_is_exact_when_only_two_windows_can_be_removed(clients: int, degree: int) -> None:
    fallen = sum(not _connected(clients, degree, set(gone)) for gone in combinations(range(clients), degree))
    expected = log2(fallen) - log2(comb(clients, degree))
    assert log2_disconnected(clients, degree, degree) == pytest.approx(expected, abs=1e-8)


@given(st.integers(4, 600), weak, servers, st.sampled_from(["corrupt", "dropout", "sigma", "eta"]))
def test_stronger_assumptions_never_need_fewer_neighbours(
    clients: int, assumptions: Sparse, server: Server, name: str
) -> None:
    step: float = 1 if name in ("sigma", "eta") else 0.05
    stronger = replace(assumptions, **{name: round(getattr(assumptions, name) + step, 2)})
    before, after = _or_none(clients, assumptions, server), _or_none(clients, stronger, server)
    if before is None:
        assert after is None
    else:
        assert after is None or after.degree >= before.degree


@given(st.integers(4, 600), weak)
def test_an_active_server_never_needs_fewer_neighbours(clients: int, assumptions: Sparse) -> None:
    active, curious = _or_none(clients, assumptions, MALICIOUS), _or_none(clients, assumptions, HONEST)
    if active is not None:
        assert curious is not None
        assert curious.degree <= active.degree
        assert curious.threshold <= active.threshold


@given(st.integers(4, 600), weak, servers)
def test_every_answer_is_a_sparse_graph_with_a_real_threshold(
    clients: int, assumptions: Sparse, server: Server
) -> None:
    found = _or_none(clients, assumptions, server)
    if found is not None:
        assert found.degree % 2 == 0
        assert 2 <= found.threshold <= found.degree <= clients - 2
        assert server is HONEST or 2 * found.threshold > found.degree


@pytest.mark.parametrize(
    ("assumptions", "server"),
    [
        (Sparse(0.1, 0.2, 4, 3), HONEST),
        (Sparse(0.05, 0.3, 3, 4), HONEST),
        (Sparse(0.15, 0.1, 5, 3), MALICIOUS),
        (Sparse(0.1, 0.2, 3, 3), MALICIOUS),
    ],
)
def test_simulated_graphs_fail_no_more_often_than_promised(assumptions: Sparse, server: Server) -> None:
    """Seeded; if the true failure rate were just what is promised, each check would raise a false alarm with 1e-9."""
    clients, runs = 60, 2_000
    insecure, incorrect = _simulate(clients, parameters(clients, assumptions, server), assumptions, server, runs)
    assert insecure <= binom.isf(1e-9, runs, 2.0**-assumptions.sigma)
    assert incorrect <= binom.isf(1e-9, runs, 2.0**-assumptions.eta)


def test_the_simulation_notices_a_degree_or_a_threshold_that_is_too_small() -> None:
    """Seeded; the rates are several times those promised, so that it misses with less than 1e-9."""
    assumptions, runs = Sparse(0.15, 0.1, 5, 3), 2_000
    found = parameters(60, assumptions, MALICIOUS)
    lower = Parameters(found.degree, found.threshold - 1)
    assert _simulate(60, lower, assumptions, MALICIOUS, runs)[0] > binom.isf(1e-9, runs, 2.0**-assumptions.sigma)
    higher = Parameters(found.degree, found.threshold + 2)
    assert _simulate(60, higher, assumptions, MALICIOUS, runs)[1] > binom.isf(1e-9, runs, 2.0**-assumptions.eta)
    thinner = Parameters(4, 4)
    assert _simulate(60, thinner, Sparse(0.2, 0.3, 5, 3), HONEST, runs)[0] > binom.isf(1e-9, runs, 2.0**-5)


@pytest.mark.parametrize(
    ("clients", "assumptions", "server", "ways"),
    [
        (10_000, Sparse(1 / 3, 1 / 3), MALICIOUS, [{"dropout": 0.33}, {"corrupt": 0.33}]),
        (100, Sparse(0.3, 0.4), MALICIOUS, [{"dropout": 0.33}, {"corrupt": 0.17}]),
        (20, Sparse(0.45, 0.45), MALICIOUS, [{"dropout": 0.2}]),
        (10, Sparse(0.98, 0.01), HONEST, [{"corrupt": 0.6}]),
        (4, Sparse(0.3, 0.3), MALICIOUS, [{"corrupt": 0.0, "dropout": 0.0}]),
    ],
)
def test_what_is_infeasible_names_the_nearest_that_is_feasible(
    clients: int, assumptions: Sparse, server: Server, ways: list[dict[str, float]]
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parameters(clients, assumptions, server)
    named = str(refused.value).partition("all else equal: ")[2]
    assert [_read(way) for way in named.split(" or ")] == ways
    for way in ways:
        assert parameters(clients, replace(assumptions, **way), server)
        beyond = {name: round(fraction + 0.01, 2) for name, fraction in way.items()}
        assert _or_none(clients, replace(assumptions, **beyond), server) is None


@given(st.integers(4, 200), st.integers(0, 60), st.integers(0, 39), servers)
def test_every_refusal_names_something_that_works(clients: int, corrupt: int, dropout: int, server: Server) -> None:
    assumptions = Sparse(corrupt / 100, dropout / 100, 40, 20)
    try:
        parameters(clients, assumptions, server)
    except ConfigurationError as refused:
        named = str(refused).partition("all else equal: ")[2]
        for way in named.split(" or "):
            assert parameters(clients, replace(assumptions, **_read(way)), server)


@pytest.mark.parametrize("clients", [0, 1, 3])
def test_too_few_clients_are_sent_to_the_complete_graph(clients: int) -> None:
    with pytest.raises(ConfigurationError, match="it takes 4; use the complete graph"):
        parameters(clients, Sparse(0, 0))


def test_four_clients_without_an_adversary_or_dropouts_make_a_ring() -> None:
    assert parameters(4, Sparse(0, 0)) == Parameters(2, 2)


@given(st.integers(4, 100), st.integers(0, 99), servers)
def test_fewer_than_two_honest_survivors_are_refused_since_the_sum_would_be_an_input(
    clients: int, corrupt: int, server: Server
) -> None:
    assumptions = Sparse(corrupt / 100, (99 - corrupt) / 100, 1, 1)
    assert clients - assumptions.corrupted(clients) - assumptions.dropped(clients) < 2
    assert _or_none(clients, assumptions, server) is None


def test_rounding_up_to_more_than_all_clients_is_an_ordinary_refusal() -> None:
    assert Sparse(0.5, 0.45).corrupted(5) + Sparse(0.5, 0.45).dropped(5) == 6
    with pytest.raises(ConfigurationError, match="no sparse graph of 5 clients is safe"):
        parameters(5, Sparse(0.5, 0.45), HONEST)


@pytest.mark.parametrize(
    "wrong",
    [
        {"corrupt": -0.1},
        {"dropout": -0.1},
        {"corrupt": 1.0},
        {"dropout": float("nan")},
        {"corrupt": 0.5, "dropout": 0.5},
        {"corrupt": 10},
        {"sigma": 0},
        {"sigma": inf},
        {"eta": 0},
        {"eta": inf},
        {"eta": float("nan")},
    ],
)
def test_assumptions_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"{next(iter(wrong))}=")):
        Sparse(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fraction", "clients", "count"), [(0.1, 1_000, 100), (0.1, 101, 11), (0.07, 100, 7), (0.29, 100, 29), (0, 50, 0)]
)
def test_fractions_are_read_as_written_and_rounded_against_us(fraction: float, clients: int, count: int) -> None:
    assert Sparse(corrupt=fraction, dropout=0).corrupted(clients) == count
    assert Sparse(corrupt=0, dropout=fraction).dropped(clients) == count


def _or_none(clients: int, assumptions: Sparse, server: Server) -> Parameters | None:
    try:
        return parameters(clients, assumptions, server)
    except ConfigurationError:
        return None


def _read(way: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"(corrupt|dropout)=([0-9.]+)", way)}


def _by_definition(clients: int, assumptions: Sparse, server: Server, factor: Fraction) -> Parameters | None:
    """Every even degree and every threshold in turn."""
    for degree in range(2, clients - 1, 2):
        for threshold in range(2, degree + 1):
            candidate = Parameters(degree, threshold)
            if _exactly_safe(clients, candidate, assumptions, server, factor):
                return candidate
    return None


def _exactly_safe(clients: int, candidate: Parameters, assumptions: Sparse, server: Server, factor: Fraction) -> bool:
    """The four conditions in fractions, without any rounding. Bounds are multiplied by ``factor``."""
    k, t = candidate.degree, candidate.threshold
    corrupt, dropped = assumptions.corrupted(clients), assumptions.dropped(clients)
    removed = corrupt + dropped
    if clients - removed < 2:
        return False
    secure, correct = factor / (1 << assumptions.sigma + 1), factor / (1 << assumptions.eta)
    windows = Fraction(comb(clients - k, removed - k), comb(clients, removed)) if removed >= k else Fraction(0)
    opened = t if server is HONEST else 2 * t - k
    return (
        windows * clients * (clients - k - 1) / 2 <= secure
        and clients * _tail(clients, corrupt, k, opened) <= secure
        and clients * _tail(clients, dropped, k, k - t + 1) <= correct
    )


def _tail(population: int, marked: int, drawn: int, least: int) -> Fraction:
    counts = range(max(least, 0), min(marked, drawn) + 1)
    ways = sum(comb(marked, x) * comb(population - marked, drawn - x) for x in counts)
    return Fraction(ways, comb(population, drawn))


def _log2(fraction: Fraction) -> float:
    """Integers of any length have a logarithm; a float of them would underflow."""
    return log2(fraction.numerator) - log2(fraction.denominator)


def _connected(clients: int, degree: int, gone: set[int]) -> bool:
    """Whether a walk over edges reaches all that are left: knows nothing about windows."""
    left = set(range(clients)) - gone
    reached = frontier = set(sorted(left)[:1])
    while frontier:
        steps = {(i + d) % clients for i in frontier for d in range(-degree // 2, degree // 2 + 1)}
        frontier = (steps & left) - reached
        reached = reached | frontier
    return reached == left


def _simulate(clients: int, found: Parameters, assumptions: Sparse, server: Server, runs: int) -> tuple[int, int]:
    """In how many of the runs some honest client is opened or cut off, and some client has too few survivors."""
    generator = np.random.default_rng(20_20_704)
    ring = _ring(clients, found.degree)
    insecure = incorrect = 0
    for _ in range(runs):
        order = generator.permutation(clients)
        corrupt = order < assumptions.corrupted(clients)
        dropped = order >= clients - assumptions.dropped(clients)
        seen = (ring @ corrupt)[~corrupt].max()
        opened = seen >= (found.threshold if server is HONEST else 2 * found.threshold - found.degree)
        left = ~(corrupt | dropped)
        parts = connected_components(ring[np.ix_(left, left)], directed=False, return_labels=False)
        insecure += int(opened or parts > 1)
        incorrect += int((ring @ ~dropped).min() < found.threshold)
    return insecure, incorrect


def _ring(clients: int, degree: int) -> NDArray[np.int64]:
    places = np.arange(clients)
    distance = np.abs(places[:, None] - places[None, :])
    distance = np.minimum(distance, clients - distance)
    edges: NDArray[np.int64] = ((distance > 0) & (distance <= degree // 2)).astype(np.int64)
    return edges


@pytest.mark.parametrize("clients", [101, 120, 300, 1000, 10_000])
@pytest.mark.parametrize("colluders", [0, 3, 10, 30])
def test_colluders_anywhere_are_withstood_by_the_condition_of_one_sum(clients: int, colluders: int) -> None:
    found = parameters(clients, Sparse(), colluders=colluders)
    k, t = found.degree, found.threshold
    assert 3 * t >= 2 * k + 2 * colluders + 2
    assert 2 * t >= k + 2 * colluders + 4
    without = parameters(clients, Sparse())
    assert (k, t) >= (without.degree, without.threshold)


def test_fractions_that_are_equal_are_the_same_assumptions() -> None:
    assert msgspec.msgpack.encode(Sparse(corrupt=0, dropout=0)) == msgspec.msgpack.encode(Sparse(0.0, 0.0))
