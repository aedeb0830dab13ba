"""Strategies against their papers' formulas, and in rounds: the same model whoever takes the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from protocols.aggregation.messages import KeysRequest
from protocols.wire import decode, kind
from securefl import SGD, Client, Dataset, LocalOptimizer, Plain, Server, Store, global_state, training
from securefl.announcement import Announcement, shown
from securefl.errors import BadInput
from securefl.learning import Cohort, Schedule, Strategy
from securefl.plan import Plan
from securefl.round import enrol, federate
from securefl.store import Store as Kept
from securefl.strategy import step
from tests.securefl.federation import CELLS, NAMES, RUN, client, direct, model

STRATEGIES = {
    "fedavg": Strategy("fedavg", 0.5),
    "fedavgm": Strategy("fedavgm", 1.0, 0.9),
    "fedadam": Strategy("fedadam", 0.1, 0.9, 0.99, 1e-3),
    "fedyogi": Strategy("fedyogi", 0.1, 0.9, 0.99, 1e-3),
    "fedadagrad": Strategy("fedadagrad", 0.1, 0.9, 0.0, 1e-3),
    "scaffold": Strategy("scaffold", 1.0),
}
CLIENTS = ("a", "b", "c")


def plan(strategy: Strategy, rounds: int = 10) -> Plan:
    return Plan(
        job="t",
        protection="plain",
        clients=CLIENTS,
        weights=(1.0, 0.5, 0.25),
        bound=1.0,
        minimum=3,
        threshold=None,
        rounds=rounds,
        mechanism=SGD(1.0, 4),
        optimizer=LocalOptimizer(0.1),
        architecture="",
        dimension=2,
        model_seed=0,
        strategy=strategy,
    )


def by_the_book(strategy: Strategy, start: float, means: Sequence[float]) -> float:
    """One coordinate, in float64, from the papers."""
    x, m, v = start, 0.0, strategy.adaptivity**2
    for mean in means:
        if strategy.kind == "fedavgm":
            m = strategy.momentum * m + mean
            x += strategy.learning_rate * m
        elif strategy.adaptive:
            m = strategy.momentum * m + (1 - strategy.momentum) * mean
            if strategy.kind == "fedadagrad":
                v += mean**2
            elif strategy.kind == "fedadam":
                v = strategy.second * v + (1 - strategy.second) * mean**2
            else:
                v -= (1 - strategy.second) * mean**2 * float(np.sign(v - mean**2))
            x += strategy.learning_rate * m / (math.sqrt(v) + strategy.adaptivity)
        else:
            x += strategy.learning_rate * mean
    return x


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(STRATEGIES)),
    st.lists(st.tuples(*[st.floats(-1, 1, width=32)] * 2), min_size=1, max_size=5),
)
def test_each_strategy_is_that_of_its_paper(kind: str, means: list[tuple[float, float]]) -> None:
    chosen = plan(STRATEGIES[kind])
    vector = global_state.first(chosen, np.array([0.25, -1.0], np.float32))
    for number, mean in enumerate(means, start=1):
        vector = step(chosen, vector, np.array(mean) * 1.75, CLIENTS, number)
    expected = [
        by_the_book(STRATEGIES[kind], start, each)
        for start, each in zip((0.25, -1.0), zip(*means, strict=True), strict=True)
    ]
    np.testing.assert_allclose(vector[:2], expected, rtol=1e-4, atol=1e-5)


def federation(
    cell: str, strategy: Strategy, store: Kept | None = None, rounds: int = 4, optimizer: LocalOptimizer | None = None
) -> tuple[Server, list[Client]]:
    coordinator = Server(
        model,
        CELLS[cell],
        SGD(1.0, 2),
        optimizer or LocalOptimizer(0.5),
        rounds=rounds,
        run=RUN,
        strategy=strategy,
        store=store,
    )
    return coordinator, [client(name) for name in NAMES]


def trained(cell: str, strategy: Strategy) -> NDArray[np.float32]:
    """The global vector after four rounds; where only clients hold it, they agree to the bit."""
    coordinator, owners = federation(cell, strategy)
    for _ in federate(coordinator, owners):
        pass
    if coordinator.vector is not None:
        return coordinator.vector
    held = [owner.held(coordinator.run).vector for owner in owners]
    assert len({vector.tobytes() for vector in held if vector is not None}) == 1
    found = held[0]
    assert found is not None
    return found


@pytest.mark.parametrize("kind", STRATEGIES)
def test_whoever_takes_the_step_it_is_the_same(kind: str) -> None:
    """Under CKKS five clients take it. Encodings round alike to within their steps, which moments may magnify."""
    reference = trained("plain", STRATEGIES[kind])
    assert not np.array_equal(reference[:22], trained("plain", Strategy("fedavg", 0.25))[:22])
    for cell in ("secagg", "ckks"):
        np.testing.assert_allclose(trained(cell, STRATEGIES[kind]), reference, atol=2e-3 if kind != "fedavg" else 1e-6)


@pytest.mark.parametrize("kind", ["fedavgm", "fedadam"])
def test_a_server_that_restarts_remembers_its_moments(kind: str, tmp_path: Path) -> None:
    coordinator, owners = federation("plain", STRATEGIES[kind])
    whole = [record.round for record in federate(coordinator, owners)]
    other, again = federation("plain", STRATEGIES[kind], Store(tmp_path / "server"))
    next(iter(federate(other, again)))
    resumed, _ = federation("plain", STRATEGIES[kind], Store(tmp_path / "server"))
    assert [record.round for record in federate(resumed, again)] == whole[1:]
    assert coordinator.vector is not None and resumed.vector is not None
    np.testing.assert_allclose(resumed.vector, coordinator.vector, atol=1e-5)


def test_moments_stay_where_they_are_and_are_named() -> None:
    """What clients download has no moments; two states that differ in those only have different tags."""
    coordinator, owners = federation("plain", STRATEGIES["fedadam"])
    enrol(coordinator, owners)
    seen: list[Announcement] = []

    class Listening:
        def __init__(self, owner: Client) -> None:
            self.owner = owner
            self.name = owner.name

        def handle(self, request: bytes) -> bytes:
            if kind(request) == KeysRequest.KIND:
                seen.append(Announcement.decoded(decode(request, KeysRequest).announcement))
            return self.owner.handle(request)

    coordinator.round(direct([Listening(owner) for owner in owners]))  # type: ignore[arg-type]
    assert {len(one.model) for one in seen} == {4 * 22}
    assert coordinator.vector is not None and len(coordinator.vector) == 3 * 22
    other = coordinator.vector.copy()
    other[-1] += 1
    tags = {shown(coordinator.plan, whole.astype("<f4").tobytes()).tag for whole in (coordinator.vector, other)}
    assert len(tags) == 2


# ---- clients that differ


def line(slope: float, spread: float, seed: int) -> Dataset:
    """Records on a line through the origin; their curvature differs by client, so that local optima pull unequally."""
    features = np.random.default_rng(seed).normal(scale=spread, size=(50, 1)).astype(np.float32)
    return Dataset(features, (slope * features[:, 0]).astype(np.float32))


SKEWED = {"ada": line(1.0, 0.5, 1), "bob": line(-1.0, 1.0, 2), "cyd": line(3.0, 1.5, 3)}


def slope() -> nn.Module:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


def fitted(strategy: Strategy, optimizer: LocalOptimizer, rounds: int = 60) -> float:
    coordinator = Server(slope, Plain(), SGD(1.0, 10), optimizer, rounds=rounds, strategy=strategy)
    for _ in federate(coordinator, [Client(name, data, slope) for name, data in SKEWED.items()]):
        pass
    found = coordinator.model()
    assert found is not None
    return float(found[0])


def test_scaffold_ends_where_all_records_together_would() -> None:
    """Many local steps pull the average to a point that is nobody's optimum; control variates take that away."""
    curvature = {name: float((data.features**2).mean()) for name, data in SKEWED.items()}
    best = sum(curvature[name] * (1.0, -1.0, 3.0)[i] for i, name in enumerate(SKEWED)) / sum(curvature.values())
    averaged = fitted(Strategy(), LocalOptimizer(0.3))
    corrected = fitted(STRATEGIES["scaffold"], LocalOptimizer(0.3))
    assert abs(averaged - best) > 0.2
    assert abs(corrected - best) < 0.01


def test_the_servers_variate_is_the_mean_of_the_clients() -> None:
    coordinator, owners = federation("secagg", STRATEGIES["scaffold"])
    for _ in federate(coordinator, owners):
        pass
    from securefl.control import Control

    own = [Control(owner._store, coordinator.run, coordinator.plan)._before(99) for owner in owners]
    assert coordinator.vector is not None and np.abs(own).max() > 0.01
    np.testing.assert_allclose(global_state.control(coordinator.plan, coordinator.vector), np.mean(own, 0), atol=1e-5)


def test_a_round_that_is_tried_again_begins_from_the_same_variate() -> None:
    coordinator, owners = federation("plain", STRATEGIES["scaffold"])
    enrol(coordinator, owners)
    from securefl.control import Control

    control = Control(owners[0]._store, coordinator.run, coordinator.plan)
    start, update = coordinator.vector, np.full(22, 0.25)
    assert start is not None
    control.move(start, update, 1)
    first = control._before(2)
    control.move(start, update, 1)
    assert np.array_equal(first, control._before(2)) and np.any(first)


def test_a_proximal_term_holds_clients_near_the_model() -> None:
    data, module = SKEWED["cyd"], slope()

    def moved(proximal: float) -> float:
        return float(training.train(module, data, SGD(1.0, 50), LocalOptimizer(0.1, proximal=proximal))[0])

    assert moved(0.0) == pytest.approx(3.0, abs=0.05)
    curvature = float((data.features**2).mean())
    assert moved(2.0) == pytest.approx(3.0 * curvature / (curvature + 2.0), abs=0.05)  # where both gradients cancel


# ---- schedules


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(), [1, 1, 1, 1]),
        (Schedule("exponential", 0.5), [1, 0.5, 0.25, 0.125]),
        (Schedule("linear"), [1, 0.75, 0.5, 0.25]),
        (Schedule("cosine"), [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]),
        (Schedule(warmup=2), [0.5, 1, 1, 1]),
    ],
)
def test_a_schedule_scales_the_rate(schedule: Schedule, expected: list[float]) -> None:
    assert [schedule.factor(number, 4) for number in range(1, 5)] == pytest.approx(expected, abs=1e-14)
    rates = [LocalOptimizer(2.0, schedule=schedule).at(number, 4).learning_rate for number in range(1, 5)]
    assert rates == pytest.approx([2 * factor for factor in expected], abs=1e-14)


def test_clients_and_server_follow_their_schedules() -> None:
    """A rate of almost nothing from the second round on: the model stays where the first left it."""
    for optimizer, strategy in (
        (LocalOptimizer(0.5, schedule=Schedule("exponential", 1e-9)), Strategy()),
        (LocalOptimizer(0.5), Strategy("fedavg", 1.0, schedule=Schedule("exponential", 1e-9))),
    ):
        coordinator, owners = federation("secagg", strategy, optimizer=optimizer)
        models = [coordinator.model() for _ in federate(coordinator, owners)]
        assert models[0] is not None and models[3] is not None
        np.testing.assert_allclose(models[3], models[0], atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Strategy("fedadam", 0.1, 0.9, 0.99),
        lambda: Strategy("fedavg", adaptivity=0.1),
        lambda: Strategy("fedavg", 0.0),
        lambda: Schedule("exponential", 0.0),
        lambda: LocalOptimizer(0.1, proximal=-1.0),
        lambda: Cohort("fixed"),
        lambda: Cohort("all", 5),
    ],
)
def test_values_that_mean_nothing_are_refused(wrong: object) -> None:
    with pytest.raises(BadInput):
        wrong()  # type: ignore[operator]
