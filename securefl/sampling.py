"""Who is asked in a round. The server's choice: it sees whom it asks, and no privacy is claimed from chance here."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np

from securefl.errors import RoundFailed
from securefl.plan import Plan
from securefl.privacy.noise import Random, poisson_sample

_DRAWS: Final = 1000


def available(plan: Plan, round: int, counts: Mapping[str, int], without: Collection[str]) -> list[str]:
    """Who may be asked: not those who took part, by ``counts``, as often as the plan has it, but for the survey."""
    most = plan.cohort.participations
    there = [name for name in plan.clients if name not in without]
    if most is None or plan.surveys(round):
        return there
    return [name for name in there if counts.get(name, 0) < most]


def sampled(plan: Plan, available: Sequence[str], random: Random = os.urandom) -> tuple[str, ...]:
    """A round's cohort among those who are ``available``, in the plan's order, at least the plan's minimum of them.

    Fixed size: every subset of that size alike. Poisson: each with the same chance by itself; a draw below the minimum
    or above the plan's largest is drawn again. Raises ``RoundFailed`` where too few are available.
    """
    fewest, most = plan.minimum * plan.cohort.groups, plan.cohort.most(len(plan.clients))
    if len(available) < fewest:
        raise RoundFailed(
            f"{len(available)} clients are left for this round, {fewest} are needed: others refused, were not "
            f"reached, or took part in all the {plan.participations} rounds that they may. The model is unchanged."
        )
    cohort = plan.cohort
    if cohort.size is None:
        return tuple(available)
    if cohort.sampling == "fixed":
        generator = np.random.default_rng(int.from_bytes(random(16)))
        chosen = generator.choice(len(available), min(most, len(available)), replace=False)
        return tuple(available[place] for place in sorted(chosen))
    rate = min(1.0, (cohort.size + cohort.extra) / len(available))
    for _ in range(_DRAWS):
        rows = poisson_sample(len(available), rate, random)
        if fewest <= len(rows) <= most:
            return tuple(available[place] for place in rows)
    raise RoundFailed(f"of {_DRAWS} cohorts none had {fewest} to {most} clients: ask for a larger cohort")


def grouped(plan: Plan, cohort: Sequence[str], random: Random = os.urandom) -> list[tuple[str, ...]]:
    """The cohort's groups, drawn at random, of sizes that differ by one at most; each in the plan's order."""
    if plan.cohort.groups == 1:
        return [tuple(cohort)]
    order = np.random.default_rng(int.from_bytes(random(16))).permutation(len(cohort))
    return [tuple(cohort[place] for place in sorted(part)) for part in np.array_split(order, plan.cohort.groups)]
