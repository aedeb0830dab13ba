"""What the clients of a job cannot keep is refused, and each value that the refusal names works."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocols.degree import Sparse
from securefl.errors import BadJob
from securefl.job import checked
from securefl.job.shield import check_encoding, check_key_rounds, check_rules
from securefl.protection import CKKS, CKKSUnmasked, Plain, Protection, SecAgg

VALUE = re.compile(
    r"write (colluders|minimum|threshold|bits|bound) = ([0-9.e+-]*[0-9])|name (?:at most )?(\d+) clients", re.I
)


def named(error: BadJob, shield: Protection, clients: int) -> list[tuple[Protection, int]]:
    """The protections and numbers of clients that a remedy tells people to choose instead, one change each."""
    found = []
    for key, value, count in VALUE.findall(error.remedy):
        number = float(value) if key == "bound" else int(value or 0)
        found.append((shield, int(count)) if count else (replace(shield, **{key: number}), clients))
    return found


@given(
    st.integers(0, 30),
    st.none() | st.integers(3, 80),
    st.none() | st.integers(2, 80),
    st.integers(3, 80),
)
def test_colluders_that_the_clients_cannot_withstand_are_refused_and_the_named_values_work(
    colluders: int, minimum: int | None, threshold: int | None, clients: int
) -> None:
    assume(threshold is None or clients < 2 * threshold <= 2 * clients)
    assume(minimum is None or minimum <= clients)
    shield = SecAgg(colluders=colluders, minimum=minimum, threshold=threshold)
    least = shield.minimum_of(clients)
    t = threshold or 2 * clients // 3 + 1
    try:
        check_rules(shield, clients)
    except BadJob as error:
        assert least <= 3 * colluders or 2 * t <= clients + colluders or t - colluders < 2
        remedies = named(error, shield, clients)
        assert remedies
        for other, count in remedies:
            check_rules(other, count)
    else:
        assert least > 3 * colluders
        assert 2 * t > clients + colluders
        assert t - colluders >= 2


@pytest.mark.parametrize(
    ("shield", "clients", "colluders"), [(SecAgg(colluders=9), 10, 2), (SecAgg(colluders=9, minimum=10), 10, 3)]
)
def test_the_named_number_of_colluders_is_the_largest(shield: Protection, clients: int, colluders: int) -> None:
    with pytest.raises(BadJob, match=f"Write colluders = {colluders}"):
        check_rules(shield, clients)


@given(
    st.sampled_from([Plain, SecAgg, CKKS]),
    st.floats(1e-9, 1e9),
    st.integers(3, 10**8),
    st.data(),
)
def test_a_sum_that_does_not_fit_is_refused_and_the_named_values_fit(
    kind: type[Protection], bound: float, clients: int, data: st.DataObject
) -> None:
    bits = data.draw(st.none() | st.sampled_from([32, 40, 48, 54] if kind.sealed else [16, 24, 32]))
    precision = data.draw(st.none() | st.floats(1e-9, 1e3)) if kind.sealed and bits is None else None
    shield = kind(bound=bound, bits=bits, precision=precision)
    try:
        check_encoding(shield, clients)
    except BadJob as error:
        for other, count in named(error, shield, clients):
            check_encoding(other, count)


@pytest.mark.parametrize(
    ("shield", "clients", "key", "words"),
    [
        (SecAgg(bits=16), 128, "bits", "Write bits = 24, or name at most 127 clients"),
        (SecAgg(bits=16, bound=6.0), 100, "bits", "Write bits = 24, or write bound = 5.05, or name at most 85 clients"),
        (SecAgg(bits=24), 10**5, "bits", "Write bits = 32, or name at most 32640 clients"),
        (CKKS(bits=32), 1000, "bits", "Write bits = 40, or name at most 254 clients"),
        (CKKS(bits=54), 10**6, "bits", "Name at most 522247 clients"),
        (CKKS(), 10**6, "bound", "Name at most 522247 clients"),
        (CKKSUnmasked(precision=1e-5), 10**4, "precision", "Write bound = 6.44, or name at most 8191 clients"),
    ],
)
def test_the_nearest_width_bound_and_number_of_clients_are_named(
    shield: Protection, clients: int, key: str, words: str
) -> None:
    with pytest.raises(BadJob) as caught:
        check_encoding(shield, clients)
    assert caught.value.key == f"protection.{key}"
    assert caught.value.remedy == words


@given(st.sampled_from([CKKS, CKKSUnmasked]), st.integers(3, 3000), st.integers(1, 3000))
def test_more_key_rounds_than_are_safe_are_refused_with_the_most_that_are_allowed(
    kind: type[Protection], clients: int, asked: int
) -> None:
    most = max(1, 1024 // clients)
    if asked <= most:
        return check_key_rounds(kind(key_rounds=asked), clients)
    with pytest.raises(BadJob) as caught:
        check_key_rounds(kind(key_rounds=asked), clients)
    assert caught.value.key == "protection.key_rounds"
    assert caught.value.remedy == f"Write at most {most}, or leave the key out"
    check_key_rounds(kind(key_rounds=most), clients)
    check_key_rounds(kind(), clients)


def job(clients: int, **shield: object) -> dict[str, object]:
    """The tables of a job with so many clients."""
    return {
        "job": {"name": "many", "rounds": 1},
        "data": {"clients": [f"client-{i:03d}" for i in range(clients)], "name": "d", "loader": "m:f"},
        "model": {"factory": "m:g"},
        "training": {"learning_rate": 0.1, "sampling_rate": 1.0, "steps": 1},
        "privacy": {"enabled": False},
        "protection": shield,
    }


def test_more_than_a_hundred_clients_mask_with_some_of_them_unless_masks_are_off_or_a_threshold_is_set() -> None:
    n = 150
    assert SecAgg().rules(n).degree_for(n) < n - 1
    for whole in (SecAgg(threshold=101), Plain(), CKKSUnmasked()):
        assert whole.rules(n).degree_for(n) == n - 1
    assert SecAgg().rules(100).degree_for(100) == 99


@pytest.mark.parametrize("clients", [101, 150, 300, 1000, 5000])
def test_the_defaults_are_safe_for_many_clients(clients: int) -> None:
    rules = SecAgg().rules(clients)
    assert 2 * clients // 3 < rules.minimum <= rules.least(clients) < clients
    for missing in range(clients // 10):
        rules.threshold_for(clients - missing)


def test_colluders_anywhere_cost_neighbours_and_too_many_are_refused_with_the_number_that_works() -> None:
    assert SecAgg(colluders=40).rules(1000).degree_for(1000) > SecAgg().rules(1000).degree_for(1000)
    with pytest.raises(BadJob, match=r"protection\.dropout.*colluders=50\."):
        checked(job(150, colluders=60))
    assert SecAgg(colluders=50, minimum=151).rules(150).degree_for(150) < 149


def test_what_a_sparse_graph_assumes_is_taken_from_the_job() -> None:
    shield = checked(job(150, dropout=0.15, corrupt=0.05)).shield
    assert shield.rules(150).sparse == Sparse(0.05, 0.15)


@pytest.mark.parametrize(
    ("clients", "shield"),
    [(100, {"dropout": 0.2}), (150, {"kind": "plain", "dropout": 0.2}), (150, {"threshold": 120, "corrupt": 0.2})],
)
def test_an_assumption_about_a_sparse_graph_is_refused_where_there_is_none(
    clients: int, shield: dict[str, object]
) -> None:
    with pytest.raises(BadJob, match="few neighbours"):
        checked(job(clients, **shield))


def test_assumptions_that_no_graph_can_meet_name_some_that_one_can() -> None:
    with pytest.raises(BadJob, match=r"protection\.dropout") as caught:
        checked(job(400, dropout=0.45, corrupt=0.3))
    nearest = re.search(r"all else equal: dropout=([0-9.]+[0-9])", str(caught.value))
    assert nearest
    checked(job(400, dropout=float(nearest[1]), corrupt=0.3))
