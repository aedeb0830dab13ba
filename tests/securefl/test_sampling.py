"""Who is asked in a round: chosen fairly, counted, and never fewer than hide each other."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from securefl import SGD, Client, LocalOptimizer, SecAgg, Server
from securefl.errors import RoundFailed
from securefl.learning import Cohort
from securefl.plan import Plan
from securefl.privacy.simulation import seeded
from securefl.round import federate
from securefl.sampling import sampled
from tests.securefl.federation import model, records

NAMES = tuple(f"client-{i:02d}" for i in range(12))


def plan(cohort: Cohort, minimum: int = 3, rounds: int = 10) -> Plan:
    return Plan(
        job="t",
        protection="plain",
        clients=NAMES,
        weights=(1.0,) * len(NAMES),
        bound=1.0,
        minimum=minimum,
        threshold=None,
        rounds=rounds,
        mechanism=SGD(1.0, 1),
        optimizer=LocalOptimizer(0.1),
        architecture="",
        dimension=2,
        model_seed=0,
        cohort=cohort,
    )


def test_without_sampling_all_who_are_there_are_asked() -> None:
    assert sampled(plan(Cohort()), NAMES[:7]) == NAMES[:7]


def test_a_fixed_cohort_has_its_size_and_everybody_has_the_same_chance() -> None:
    """1000 draws of 4 of 12: each about 333 times, deviation 15. A fair draw fails about once in 10^6."""
    chosen = plan(Cohort("fixed", 3, extra=1))
    draws = [sampled(chosen, NAMES, seeded(1, i)) for i in range(1000)]
    assert {len(draw) for draw in draws} == {4}
    counts = Counter(name for draw in draws for name in draw)
    assert max(abs(counts[name] - 1000 / 3) for name in NAMES) < 6 * 15


def test_a_poisson_cohort_is_that_large_on_average() -> None:
    """Conditioned on at least 3 of 12 at rate 1/2, which leaves out 1.9 %: the mean is 6.07, deviation 0.05."""
    sizes = [len(sampled(plan(Cohort("poisson", 6)), NAMES, seeded(2, i))) for i in range(1000)]
    assert min(sizes) >= 3 and abs(float(np.mean(sizes)) - 6.07) < 6 * 0.055
    assert len(set(sizes)) > 4


def test_too_few_are_told() -> None:
    with pytest.raises(RoundFailed, match="2 clients are left for this round, 3 are needed"):
        sampled(plan(Cohort("fixed", 3)), NAMES[:2])


def federation(cohort: Cohort, rounds: int, seed: int | None = None) -> tuple[Server, list[Client]]:
    coordinator = Server(model, SecAgg(), SGD(1.0, 1), LocalOptimizer(0.5), rounds=rounds, cohort=cohort, sampling=seed)
    return coordinator, [Client(name, records(i), model) for i, name in enumerate(NAMES)]


def test_rounds_have_cohorts_and_participation_is_counted() -> None:
    coordinator, owners = federation(Cohort("fixed", 5), 6)
    done = list(federate(coordinator, owners))
    assert {len(record.contributors) for record in done} == {5}
    assert not any(record.dropped for record in done)  # who was not asked was not lost
    assert len({record.contributors for record in done}) > 1
    assert coordinator.counts == {name: sum(name in record.contributors for record in done) for name in NAMES}
    assert coordinator.plan.minimum == 4  # of the cohort, not of the roster


def test_nobody_takes_part_more_often_than_the_plan_has_it() -> None:
    coordinator, owners = federation(Cohort("fixed", 4, participations=2), 5)
    done = list(federate(coordinator, owners))
    assert len(done) == 5 and max(coordinator.counts.values()) == 2
    coordinator, owners = federation(Cohort("fixed", 4, participations=1), 4)
    with pytest.raises(RoundFailed, match="took part in all the 1 rounds that they may"):
        list(federate(coordinator, owners))
    assert coordinator.round_number == 3


def test_a_simulations_cohorts_repeat() -> None:
    def cohorts(seed: int | None) -> list[tuple[str, ...]]:
        return [record.contributors for record in federate(*federation(Cohort("fixed", 4), 4, seed))]

    assert cohorts(7) == cohorts(7)
    assert cohorts(7) != cohorts(8)
