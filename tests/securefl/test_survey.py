"""The last round asks how good the model is at each client, and is told noised counts only."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from securefl import DPSGD, SGD, Client, LocalOptimizer, Server, survey
from securefl.errors import BudgetExceeded
from securefl.plan import PrivacyTerms, Survey
from securefl.privacy.mechanism import Budget, NoisedSum, Skellam
from securefl.releases import releases
from securefl.round import federate
from tests.securefl.federation import CELLS, NAMES, RUN, model, records

PLAIN = SGD(1.0, 2)
HARDLY = 1e-3  # noise that rounds away
PRIVATE = DPSGD(noise_multiplier=3.0, sampling_rate=0.5, steps=2, clip=1.0)


def federation(
    cell: str, asked: Survey, mechanism: SGD | DPSGD = PLAIN, budget: Budget | None = None
) -> tuple[Server, list[Client]]:
    coordinator = Server(
        model,
        CELLS[cell],
        mechanism,
        LocalOptimizer(0.5),
        rounds=3,
        run=RUN,
        privacy=PrivacyTerms(survey=asked),
        weights={"ada": 0.5},
    )
    owners = [
        Client(name, records(i), model, held_out=records(50 + i, 60), budget=budget) for i, name in enumerate(NAMES)
    ]
    return coordinator, owners


def found(cell: str, asked: Survey) -> tuple[survey.Found, np.ndarray, np.ndarray]:
    """What was found; the model before the survey, and after it."""
    coordinator, owners = federation(cell, asked)
    models = []
    for _ in federate(coordinator, owners):
        held = coordinator.model()
        models.append(owners[0].model(RUN) if held is None else held)
    assert coordinator.round_number == 4
    counts = owners[0].held(RUN).surveyed
    if coordinator.vector is not None:
        from securefl import global_state

        counts = global_state.surveyed(coordinator.plan, coordinator.vector)
    return survey.found(coordinator.plan, counts, len(NAMES)), models[2], models[3]


@pytest.mark.parametrize("cell", CELLS)
def test_counts_are_those_of_the_clients_and_the_model_stays(cell: str) -> None:
    told, before, after = found(cell, Survey(HARDLY, bins=4, scores=HARDLY))
    assert np.array_equal(before, after)
    assert told.clients == 5
    from securefl import evaluation, vector

    module = vector.build(model, 0)
    vector.load(module, before.astype(np.float32))
    own = [evaluation.accuracy(module, records(50 + i, 60)) for i in range(5)]
    expected = np.histogram(own, bins=4, range=(0, 1))[0]
    np.testing.assert_allclose(told.spread["federated"].counts, expected, atol=0.1)
    assert all(sum(told.spread[name].counts) == pytest.approx(5, abs=0.1) for name in survey.MODELS)
    scores = np.concatenate([evaluation.scores(module, records(50 + i, 60)) for i in range(5)])
    labels = np.concatenate([records(50 + i, 60).labels for i in range(5)])
    assert told.auc == pytest.approx(roc_auc_score(labels, np.floor(scores * 4)), abs=0.01)
    assert "personalised" in str(told) and "AUC" in str(told)


def test_the_survey_is_charged_as_what_it_is_and_training_as_before() -> None:
    coordinator, owners = federation("secagg", Survey(2.0, scores=5.0), PRIVATE, Budget(20.0, 1e-5))
    list(federate(coordinator, owners))
    charged = [entry.releases for entry in owners[0].account.ledger.entries()]
    assert charged[:3] == [(PRIVATE,)] * 3
    assert [type(each) for each in charged[3]] == [Skellam, NoisedSum]
    assert charged[3] == releases(coordinator.plan, 4)


def test_a_survey_that_does_not_fit_is_refused_before_the_first_round() -> None:
    alone = federation("secagg", Survey(4.0), PRIVATE, Budget(4.0, 1e-5))
    list(federate(*alone))  # fits
    with pytest.raises(BudgetExceeded):
        next(iter(federate(*federation("secagg", Survey(0.3), PRIVATE, Budget(4.0, 1e-5)))))


@pytest.mark.attack("counts without noise")
def test_a_clients_accuracy_does_not_show_in_the_counts() -> None:
    """Without noise the counts tell of a client that it is in the lowest class; with noise that is a guess."""

    def lowest(noise: float, spoiled: bool) -> float:
        coordinator, owners = federation("secagg", Survey(noise, bins=2))
        if spoiled:
            held = owners[0]._material.held_out
            assert held is not None
            object.__setattr__(held, "labels", 1 - held.labels)
        list(federate(coordinator, owners))
        from securefl import global_state

        assert coordinator.vector is not None
        counts = global_state.surveyed(coordinator.plan, coordinator.vector)
        return survey.found(coordinator.plan, counts, 5).spread["federated"].counts[0]

    assert lowest(HARDLY, spoiled=True) - lowest(HARDLY, spoiled=False) == pytest.approx(1, abs=0.1)
    # With deviation 4 sqrt(3 * 5 / 3) = 8.9 a difference of 1 is lost; only that counts differ at all is certain.
    assert len({lowest(4.0, spoiled=True) for _ in range(3)}) > 1


def test_what_cannot_be_measured_counts_as_wrong_and_nobody_stays_away() -> None:
    coordinator, owners = federation("plain", Survey(HARDLY, bins=4))

    rounds = federate(coordinator, owners)
    for _ in range(3):
        next(rounds)
    object.__setattr__(owners[1]._material.held_out, "features", np.zeros((60, 3), np.float32))
    last = next(rounds)
    assert last.contributors == NAMES
    assert any("could not be measured" in line or "records" in line for line in owners[1].errors)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=20), st.integers(1, 60))
def test_figures_are_of_the_nearest_counts_that_can_be_true(row: list[float], clients: int) -> None:
    """By the conditions of Karush, Kuhn and Tucker: what is kept moved alike, what became zero would move further."""
    noised = np.array(row)
    nearest = survey._nearest(noised, clients)
    assert nearest.min() >= 0 and nearest.sum() == pytest.approx(clients)
    moved = noised - nearest
    kept = nearest > 1e-9
    assert np.ptp(moved[kept]) < 1e-9
    assert (moved[~kept] <= moved[kept].max() + 1e-9).all()


def test_a_mean_is_pulled_to_the_middle_half_as_far_as_by_cutting_off() -> None:
    """The seed is fixed: 0.054 and 0.100, each give or take 0.002."""
    random, truth = np.random.default_rng(0), np.array([0, 0, 0, 0, 0, 0, 0, 2, 8, 30])
    middles = (np.arange(10) + 0.5) / 10
    rows = truth + random.normal(0, 3.2, (1000, 10))
    real, cut = truth @ middles / 40, rows.clip(min=0)
    off = real - np.mean([survey.spread(row, 40, 3.2).mean for row in rows])
    assert off < 0.62 * (real - np.mean(cut @ middles / cut.sum(axis=1)))


def test_a_quartile_that_a_class_reaches_exactly_is_in_it() -> None:
    told = survey.spread([1, 1, 1, 1], 4, 0.0)
    assert told.quartiles == (0.125, 0.375, 0.625)
    assert (told.mean, told.worst, told.counts) == (0.5, 0.125, (1.0, 1.0, 1.0, 1.0))


@given(
    st.lists(st.floats(0, 50), min_size=5, max_size=5),
    st.lists(st.floats(0, 50), min_size=5, max_size=5),
)
def test_auc_of_counts_is_that_of_records(negative: list[float], positive: list[float]) -> None:
    low, high = np.round(negative), np.round(positive)
    told = survey._auc(low, high)
    if low.sum() == 0 or high.sum() == 0:
        assert told is None
        return
    scores = np.concatenate([np.repeat(np.arange(5), low.astype(int)), np.repeat(np.arange(5), high.astype(int))])
    labels = np.repeat([0, 1], [int(low.sum()), int(high.sum())])
    assert told is not None and math.isclose(told, roc_auc_score(labels, scores), abs_tol=1e-9)
