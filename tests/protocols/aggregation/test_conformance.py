"""One suite for all four cells: encodings with and without masks give one aggregate, whoever drops out and whenever."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from protocols.aggregation.messages import Envelope
from protocols.aggregation.secrets import pair_mask, self_mask_key
from protocols.aggregation.server import Aggregate
from protocols.aggregation.session import Step
from protocols.aggregation.states import Sharing
from protocols.errors import ConfigurationError, RoundAborted, SessionSpent
from protocols.graph import CohortRules
from protocols.masking import Mask, apply_masks
from protocols.wire import decode
from tests.protocols.cohort import BOUND, CELLS, MASKED, NEVER, Cohort, Wire, clean_run, make, names, steps_of, updates

counts = st.integers(3, 7)


def silences(count: int) -> st.SearchStrategy[dict[str, int]]:
    """From which exchange on each client is silent; most of them never."""
    first = st.sampled_from([NEVER] * 5 + [0, 1, 2, 3, 4])
    return st.lists(first, min_size=count, max_size=count).map(
        lambda exchanges: dict(zip(names(count), exchanges, strict=True))
    )


def expected(cell: str, silent: dict[str, int]) -> tuple[str, ...] | None:
    """Who contributes, from the specification alone; None where too few are left."""
    heard = {step: [name for name, first in silent.items() if first > step] for step in Step}
    cohort = heard[Step.KEYS]
    if len(cohort) < 3:
        return None
    threshold = 2 * len(cohort) // 3 + 1
    if any(len(heard[step]) < threshold for step in steps_of(cell)[1:]):
        return None
    return tuple(heard[Step.INPUT])


def outcome(cohort: Cohort, silent: dict[str, int]) -> Aggregate | RoundAborted:
    try:
        return cohort.run(Wire(cohort.clients, silent))
    except RoundAborted as aborted:
        return aborted


@settings(max_examples=40)
@given(st.data(), counts, st.integers(0, 2**32))
def test_all_cells_give_the_same_aggregate_under_any_dropout(data: st.DataObject, count: int, seed: int) -> None:
    silent = data.draw(silences(count))
    weights = dict(
        zip(names(count), data.draw(st.lists(st.floats(2**-6, 1), min_size=count, max_size=count)), strict=True)
    )
    decoded = []
    for cell in CELLS:
        cohort = make(cell, count, inputs=updates(count, 6, seed), weights=weights)
        result, contributors = outcome(cohort, silent), expected(cell, silent)
        first_silent = {
            name: f"exchange {cell_step(cell, first)}" for name, first in silent.items() if first <= Step.UNMASK
        }
        if contributors is None:
            assert isinstance(result, RoundAborted)
            assert result.faults == {}
            assert set(result.dropped) <= set(first_silent)
            continue
        assert isinstance(result, Aggregate)
        assert result.contributors == contributors
        assert result.faults == {}
        assert dict(result.dropped) == {
            name: exchange for name, exchange in first_silent.items() if exchange != "exchange 9"
        }
        assert cohort.is_right(result)
        decoded.append(cohort.decoded(result))
    # Each is within its own tolerance of the truth, so any two are within their sum.
    assert all(np.abs(one - other).max() < 1e-5 for one in decoded for other in decoded)


def cell_step(cell: str, first: int) -> int:
    """The exchange in which a client is missed that is silent from ``first`` on."""
    return next((step for step in steps_of(cell) if step >= first), NEVER)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("step", list(Step)[:5])
def test_one_dropout_of_five_at_any_exchange_is_survived(cell: str, step: Step) -> None:
    cohort = make(cell)
    aggregate = cohort.run(Wire(cohort.clients, {"c2": step}))
    contributes = step > Step.INPUT
    assert ("c2" in aggregate.contributors) == contributes
    assert aggregate.sum.recovered == (("c2",) if cell in MASKED and step == Step.INPUT else ())
    assert cohort.is_right(aggregate)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("step", list(Step)[:5])
def test_two_dropouts_of_five_abort_unless_they_leave_before_the_key_list_or_are_not_needed(
    cell: str, step: Step
) -> None:
    """t is 4 of 5. Two that never came leave a cohort of 3 with t = 3."""
    cohort = make(cell)
    result = outcome(cohort, {"c0": step, "c4": step})
    if step == Step.KEYS or (cell not in MASKED and step > Step.INPUT):
        assert isinstance(result, Aggregate) and cohort.is_right(result)
    else:
        assert isinstance(result, RoundAborted)
        assert set(result.dropped) == {"c0", "c4"}


@pytest.mark.parametrize("cell", CELLS)
def test_a_cohort_of_three_tolerates_no_dropout(cell: str) -> None:
    assert isinstance(outcome(make(cell, 3), {}), Aggregate)
    assert isinstance(outcome(make(cell, 3), {"c1": Step.INPUT}), RoundAborted)


@pytest.mark.parametrize("cell", CELLS)
def test_an_empty_exchange_aborts(cell: str) -> None:
    for step in steps_of(cell):
        assert isinstance(outcome(make(cell), dict.fromkeys(names(5), int(step))), RoundAborted)


def test_fewer_clients_than_a_chosen_threshold_abort_after_the_first_exchange() -> None:
    for cell in CELLS:
        cohort = make(cell, 5, rules=CohortRules(3, 5))
        result = outcome(cohort, {"c0": 0})
        assert isinstance(result, RoundAborted)
        assert dict(result.dropped) == {"c0": "exchange 0"}


@pytest.mark.parametrize("rules", [CohortRules(3, 6), CohortRules(3, 2), CohortRules(6), CohortRules(4, 3, 1)])
def test_a_threshold_above_the_cohort_or_too_low_is_refused_before_anything_is_sent(rules: CohortRules) -> None:
    with pytest.raises(ConfigurationError):
        make("secagg", 5, rules=rules)


def test_a_weight_that_could_wrap_the_sum_is_refused() -> None:
    for weight in (0.0, -0.5, 1.0000001, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match="weight"):
            make("secagg", weights=dict.fromkeys(names(5), 1.0) | {"c1": weight})


# ---- what the server sees


@pytest.mark.parametrize("cell", CELLS)
def test_the_server_gets_the_ledger_heads_of_the_cohort(cell: str) -> None:
    cohort = make(cell)
    aggregate = cohort.run(Wire(cohort.clients, {"c3": 0}))
    assert aggregate.sum.witnesses == dict.fromkeys(("c0", "c1", "c2", "c4"), b"ledger head")


def uniform(vector: np.ndarray) -> float:
    """The p-value of uniformity in the ring of 2**32."""
    return float(stats.kstest(vector / 2.0**32, "uniform").pvalue)


def test_one_masked_input_is_uniform_even_without_its_self_mask_or_without_its_pairwise_masks() -> None:
    """Kolmogorov-Smirnov on 20000 words; false alarm 3e-6 over the three tests. Bare, the same words fail it at once.

    The two cases are what a server gets to know: all pairwise masks of a client that dropped, or the self mask of one
    that survived, never both.
    """
    dimension = 20_000
    constant = dict.fromkeys(names(4), np.full(dimension, 1.5))
    cohort = make("secagg", 4, dimension, inputs=constant)
    wire = clean_run(cohort)
    ring = cohort.terms.layout.ring
    seen = ring.unpack(decode(wire.replies[Step.INPUT, "c1"], Envelope).parts[0], dimension)
    state = wire.before[Step.INPUT, "c1"]._state
    assert isinstance(state, Sharing)
    self_mask = [Mask(self_mask_key(cohort.terms, "c1", state.self_seed), -1)]
    pair_masks = [
        Mask(mask.key, -1 if mask.sign == 1 else 1)
        for peer in ("c0", "c2", "c3")
        for mask in [pair_mask(cohort.terms, state.mask, "c1", peer, state.cohort.advertised[peer].mask_key)]
    ]

    def without(masks: list[Mask]) -> np.ndarray:
        vector = seen.copy()
        apply_masks(vector, ring, masks)
        return vector

    assert uniform(seen) > 1e-6
    assert uniform(without(self_mask)) > 1e-6
    assert uniform(without(pair_masks)) > 1e-6
    assert all(uniform(without(self_mask + pair_masks[:i] + pair_masks[i + 1 :])) > 1e-6 for i in range(3))
    bare = without(self_mask + pair_masks)
    assert uniform(bare) < 1e-12
    assert np.abs(bare.view(np.int32) / cohort.encoding.scale - 1.5).max() < 1e-6  # type: ignore[attr-defined]


@pytest.mark.parametrize("cell", MASKED)
def test_two_rounds_of_the_same_update_share_no_masked_word(cell: str) -> None:
    """Of 6 (or 4096) words of 32 (or 54) bits one is equal by chance with probability below 2e-9."""
    vectors = []
    for attempt in (1, 2):
        cohort = make(cell, attempt=attempt)
        reply = clean_run(cohort).replies[Step.INPUT, "c1"]
        vectors.append(cohort.terms.layout.ring.unpack(decode(reply, Envelope).parts[0], cohort.terms.layout.length))
    assert (vectors[0] != vectors[1]).all()


def test_in_plain_the_server_reads_an_update() -> None:
    """The attacker's baseline is what it says: without masks the input lies open."""
    cohort = make("plain")
    part = decode(clean_run(cohort).replies[Step.INPUT, "c1"], Envelope).parts[0]
    read = cohort.encoding.decode(cohort.terms.layout.ring.unpack(part, 6), ())
    assert np.abs(read - cohort.inputs["c1"]).max() < 1e-6


# ---- inputs


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_client_whose_update_is_not_finite_drops_out_and_is_recovered(cell: str, bad: float) -> None:
    inputs = updates(5, 6)
    inputs["c2"] = np.array([0, 0, bad, 0, 0, 0])
    cohort = make(cell, inputs=inputs)
    wire = Wire(cohort.clients)
    aggregate = cohort.run(wire)
    assert "NaN" in str(wire.refusals["c2"])
    assert aggregate.contributors == ("c0", "c1", "c3", "c4")
    assert cohort.is_right(aggregate)


@pytest.mark.parametrize("cell", CELLS)
def test_the_update_is_asked_for_once_and_only_from_who_shared(cell: str) -> None:
    cohort = make(cell)
    cohort.run(Wire(cohort.clients, {"c2": Step.INPUT}))
    assert sorted(cohort.asked_for_update) == ["c0", "c1", "c3", "c4"]


@pytest.mark.parametrize("cell", CELLS)
def test_what_training_raises_passes_through_and_ends_the_session(cell: str) -> None:
    class OutOfMemory(Exception): ...

    def train() -> np.ndarray:
        raise OutOfMemory

    wire = clean_run(make(cell))
    client = wire.before[Step.INPUT, "c1"]
    object.__setattr__(client._contribution, "update", train)
    with pytest.raises(OutOfMemory):
        client.handle(wire.requests[Step.INPUT, "c1"])
    with pytest.raises(SessionSpent):
        client.handle(wire.requests[Step.INPUT, "c1"])


@example(9)
@settings(max_examples=5)
@given(st.integers(3, 25))
def test_larger_cohorts_sum_rightly_too(count: int) -> None:
    full = dict.fromkeys(names(count), np.full(3, BOUND))
    cohort = make("secagg", count, 3, inputs=full)
    aggregate = cohort.run(Wire(cohort.clients, {"c1": Step.INPUT} if count > 3 else {}))
    assert len(aggregate.contributors) == count - (count > 3)
    assert cohort.is_right(aggregate)
