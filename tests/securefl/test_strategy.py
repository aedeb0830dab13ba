from __future__ import annotations

import numpy as np

from securefl.plan import LocalOptimizer, Plan
from securefl.privacy.mechanism import SGD
from securefl.strategy import federated_average


def plan(weights: tuple[float, ...]) -> Plan:
    return Plan(
        job="t",
        protection="plain",
        clients=("a", "b", "c"),
        weights=weights,
        bound=1.0,
        minimum=3,
        threshold=None,
        mechanism=SGD(1.0, 1),
        optimizer=LocalOptimizer(0.1),
        architecture="",
        dimension=2,
        model_seed=0,
    )


def test_the_model_moves_by_the_weighted_mean() -> None:
    updates = {"a": np.array([1.0, 0.0]), "c": np.array([0.0, 4.0])}
    weights = {"a": 1.0, "c": 0.25}
    total = sum(weights[name] * updates[name] for name in updates)
    moved = federated_average(plan((1.0, 0.5, 0.25)), np.array([10.0, 10.0], np.float32), total, ["a", "c"])
    np.testing.assert_array_equal(moved, np.float32([10 + 1 / 1.25, 10 + 1 / 1.25]))


def test_the_order_of_contributors_does_not_change_a_bit() -> None:
    weighted, model = plan((0.1, 0.2, 0.3)), np.array([0.1, 0.2], np.float32)
    total = np.array([0.3, 0.7])
    one = federated_average(weighted, model, total, ["a", "b", "c"])
    assert one.tobytes() == federated_average(weighted, model, total, ["c", "a", "b"]).tobytes()


def test_the_step_is_the_same_to_the_bit_on_every_machine() -> None:
    # The golden bytes were computed with exact rationals, rounded once
    # to float64 after each operation and then to float32.
    moved = federated_average(
        plan((0.1, 0.7, 1.0)),
        np.array([1 / 3, -2 / 7], np.float32),
        np.array([0.123456789, -0.987654321]),
        ["a", "b", "c"],
    )
    assert moved.astype("<f4").tobytes().hex() == "84c8cd3ef89b55bf"
