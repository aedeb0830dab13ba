"""The canary audit: how tight its bounds are, whether it finds planted faults, how often it accuses without cause."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.progress import track
from scipy.stats import binomtest

from benchmarks.audited import client_level, digits, small
from benchmarks.mutants import MUTANTS, Mutant, caught_by
from benchmarks.rows import Row, value_row
from securefl.audit.canary_audit import audit
from securefl.audit.result import Audit

TITLE: Final = "What an audit sees"
RUNS: Final = 200
LEVEL: Final = 0.01
"""How often a 99 % bound may be too high."""


def rows(quick: bool) -> list[Row]:
    """The rows of this subject. Quick: a third of the canaries, a tenth of the honest runs."""
    return [*tightness_rows(quick), *mutant_rows(quick), *false_alarm_rows(RUNS // 10 if quick else RUNS, quick)]


def tightness_rows(quick: bool) -> Iterator[Row]:
    """Headline bound over claim, on digits: sigma 4 with all records in every step; sigma 1 with a tenth of them."""
    canaries = 300 if quick else 1000
    for name, job, goal in (
        ("tightness_q1", digits(noise=4.0, rate=1.0), 0.80),
        ("tightness_q01", digits(noise=1.0, rate=0.1), 0.35),
    ):
        found = audit(job, count=canaries)
        ratio = found.found.headline.epsilon / found.asked.claim
        yield Row(name, ratio, "of the claim", None, None, None, goal, ratio >= goal, quick)
        for bound in found.found.bounds:
            yield value_row(f"{name}_{bound.method.replace(' ', '_')}", bound.epsilon, "epsilon", quick)
        yield value_row(f"{name}_claim", found.asked.claim, "epsilon", quick)


def mutant_rows(quick: bool) -> list[Row]:
    """How many planted faults there are, and how many nothing accuses."""
    missed = [mutant for mutant in track(MUTANTS, "planted faults") if not accused(mutant)]
    return [
        Row("mutants_run", len(MUTANTS), "faults", None, None, None, 8, len(MUTANTS) >= 8, quick),
        value_row("mutants_missed", len(missed), "faults", quick, at_most=0),
    ]


def accused(mutant: Mutant) -> tuple[str, ...]:
    """What accuses the mechanism with this fault in it."""
    job = {"unsampled": small(1.0), "sampled": small(0.25, noise=0.5, rounds=12), "client": client_level()}[mutant.job]
    with mutant.planted():
        return caught_by(audit(job, count=60 if mutant.job == "client" else 200, seed=_seed(mutant)))


def _seed(mutant: Mutant) -> int | None:
    """Faults in where noise comes from are planted there; all others are repeatable."""
    return None if "noise in" in mutant.name or "shared" in mutant.name else 7


def false_alarm_rows(runs: int, quick: bool) -> Iterator[Row]:
    """How often the headline at 99 % is above the claim, which is the true epsilon there; and how often a test fails.

    The goal is met if the level lies inside the 99 % interval of the rate.
    """
    found = [honest(seed) for seed in track(range(runs), "honest mechanisms")]
    yield Row("audit_runs", runs, "runs", None, None, None, RUNS, runs >= RUNS, quick)
    refuted = sum(one.found.headline.refutes(one.asked.claim) for one in found)
    yield from _rate_rows("false_alarm_rate", refuted, runs, quick)
    failed = sum(any(check.failed for check in one.found.checks) for one in found)
    yield from _rate_rows("false_alarm_rate_of_tests", failed, runs, quick)


def honest(seed: int) -> Audit:
    """One audit of the mechanism as it is; coins and noise from a seed."""
    return audit(small(1.0), count=100, seed=seed)


def _rate_rows(name: str, alarms: int, runs: int, quick: bool) -> Iterator[Row]:
    interval = binomtest(alarms, runs).proportion_ci(0.99, "exact")
    inside = interval.low <= LEVEL <= interval.high
    yield Row(name, alarms / runs, "of the runs", None, None, None, LEVEL, inside, quick)
    yield value_row(f"{name}_interval_from", interval.low, "", quick)
    yield value_row(f"{name}_interval_to", interval.high, "", quick)
