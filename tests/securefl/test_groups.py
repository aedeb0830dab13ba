"""Sums of groups: one client spoils its group's mean, and the median of the means goes on without it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from protocols.encoding import Floats
from securefl import SGD, Client, LocalOptimizer, SecAgg, Server
from securefl.announcement import Announcement
from securefl.attacks.saboteurs import Altering
from securefl.errors import Refused
from securefl.learning import Cohort
from securefl.plan import Plan
from securefl.policy import Policy
from securefl.round import enrol, federate
from securefl.sampling import grouped
from securefl.strategy import Summed, of_groups, step
from tests.securefl.federation import model, records
from tests.securefl.test_sampling import plan

NAMES = tuple(f"client-{i:02d}" for i in range(12))


class Saboteur(Altering):
    """Sends the largest update that the plan allows, in every coordinate."""

    def altered(self, announced: Announcement, start: NDArray[np.float32], honest: Floats) -> Floats:
        return np.full(announced.plan.dimension, announced.plan.bound)


def moved(groups: int, saboteurs: int) -> float:
    """How far the model is, after three rounds, from where honest clients alone in one sum bring it."""
    found = []
    for bad, parts in ((saboteurs, groups), (0, 1)):
        coordinator = Server(
            model, SecAgg(), SGD(1.0, 2), LocalOptimizer(0.5), rounds=3, cohort=Cohort(groups=parts), sampling=3
        )
        kinds = [Saboteur] * bad + [Client] * (len(NAMES) - bad)
        owners = [kind(name, records(i), model) for i, (name, kind) in enumerate(zip(NAMES, kinds, strict=True))]
        done = list(federate(coordinator, owners))
        assert all(record.contributors == NAMES for record in done)
        at = coordinator.model()
        assert at is not None
        found.append(at)
    return float(np.abs(found[0] - found[1]).max())


@pytest.mark.attack("one client that sends the largest update there is")
def test_one_client_moves_the_mean_and_not_the_median_of_means() -> None:
    assert moved(groups=1, saboteurs=1) > 1
    assert moved(groups=3, saboteurs=1) < 0.2
    assert moved(groups=3, saboteurs=0) < 0.2


def test_groups_are_disjoint_and_nearly_equal() -> None:
    chosen = plan(Cohort(groups=5))
    parts = grouped(chosen, NAMES)
    assert sorted(name for part in parts for name in part) == list(NAMES)
    assert {len(part) for part in parts} <= {2, 3}
    assert all(list(part) == sorted(part) for part in parts)


def test_the_median_is_taken_of_means_by_weight() -> None:
    chosen = plan(Cohort(groups=3))
    means = ([1.0, 5.0], [2.0, -3.0], [100.0, 0.0])
    sums = [Summed(4 * np.array(mean), NAMES[4 * i : 4 * i + 4]) for i, mean in enumerate(means)]
    found = of_groups(chosen, np.zeros(2, np.float32), sums)
    np.testing.assert_allclose(found, [2.0, 0.0])
    one = [Summed(np.array([12.0, 24.0]), NAMES)]
    assert (
        of_groups(chosen, np.zeros(2, np.float32), one).tobytes()
        == step(chosen, np.zeros(2, np.float32), *one[0]).tobytes()
    )


def test_what_is_promised_of_a_sum_is_of_each_groups() -> None:
    coordinator = Server(model, SecAgg(), SGD(1.0, 1), LocalOptimizer(0.5), rounds=1, cohort=Cohort(groups=3))
    owners = [Client(name, records(i), model) for i, name in enumerate(NAMES)]
    enrol(coordinator, owners)
    found: Plan = coordinator.plan
    assert (found.expected, found.largest, found.minimum) == (4, 4, 3)
    strict = Client(NAMES[0], records(0), model, policy=Policy(minimum=6))
    with pytest.raises(Refused, match="minimum"):
        strict.policy.check(found, NAMES[0], None)
