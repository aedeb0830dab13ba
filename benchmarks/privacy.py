"""Privacy: epsilons beside their known values, what accounting and safe noise cost, and what is noticed afterwards.

Kills of a process that charges its ledger (``crash_points``), run folders that were falsified (``falsified``), steps of
DP-SGD (``steps``); here are the accountants, on ledger files.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from rich.progress import track

from benchmarks import crash_points
from benchmarks.rows import Row, value_row
from protocols.primitives import Identity
from securefl.plan import ClientLevel, LocalOptimizer, Plan, PrivacyTerms
from securefl.privacy import accountant, renyi
from securefl.privacy.ledger import Ledger, Owner, read
from securefl.privacy.mechanism import DPSGD, SGD, Budget, SampledGaussian
from securefl.protection import SecAgg
from securefl.releases import releases

TITLE: Final = "Privacy that is accounted for"
DELTA: Final = 1e-5
MILLION: Final = 1_000_000
CHARGES: Final = 500
OPENINGS: Final = 5
_IDENTITY: Final = Identity(bytes(range(32)))
_OWNER: Final = Owner("hospital-1", "diagnoses")
_DATA: Final = bytes(32)
# Together the thousand steps whose epsilon is known.
_ROUND: Final = (DPSGD(noise_multiplier=1.0, sampling_rate=0.01, steps=2),)


def rows(quick: bool) -> list[Row]:
    """The rows of this subject. Quick: a tenth of the charges and kills, and no falsified run under CKKS."""
    with tempfile.TemporaryDirectory(prefix="securefl-privacy-") as folder:
        found = [*epsilon_rows(Path(folder), quick), skellam_row(MILLION, quick)]
        found += charge_rows(Path(folder), CHARGES // 10 if quick else CHARGES, quick)
    found += crash_rows(20 if quick else 240, quick)
    found += step_rows(quick)
    return [*found, *falsified_rows(("secagg",) if quick else ("secagg", "ckks"), quick)]


def epsilon_rows(folder: Path, quick: bool) -> Iterator[Row]:
    """Epsilons that are known: of one charge, and of five rounds on a ledger that is opened anew for each."""
    one = accountant.epsilon([DPSGD(noise_multiplier=1.0, sampling_rate=0.01, steps=1000)], DELTA)
    yield _known_row("epsilon_q01_s1_t1000", one, 1.828, 0.01, quick)
    five = (DPSGD(noise_multiplier=1.0, sampling_rate=0.05, steps=20),)
    for number in range(5):
        with closing(Ledger(folder / "five.sqlite", _IDENTITY, _OWNER, Budget(10.0, DELTA))) as ledger:
            ledger.charge("run", number, 1, five, _DATA, simulated=False)
            spent = ledger.epsilon()
    yield _known_row("epsilon_five_rounds", spent, 3.50, 0.02, quick)


def skellam_row(dimension: int, quick: bool) -> Row:
    """How much larger the epsilon of distributed Skellam noise is than that of a Gaussian of equal noise multiplier.

    Both by Renyi curves; 100 clients in a 32-bit ring; the worst of several noises and numbers of rounds.
    """
    worst = 0.0
    for noise in (0.5, 1.0, 2.0, 4.0, 8.0):
        for rounds in (1, 10, 100):
            skellam = accountant.epsilon(releases(_client_level(noise, dimension)) * rounds, DELTA, "client")
            gaussian = renyi.epsilon([SampledGaussian(noise, 1.0, rounds)], DELTA)
            worst = max(worst, 100 * (skellam / gaussian - 1))
    return value_row("skellam_overhead_1m_percent", worst, "%", quick, at_most=0.1)


def charge_rows(folder: Path, charges: int, quick: bool) -> Iterator[Row]:
    """Processor time of composing all charges on a ledger file that is opened anew after each fifth, and what is beside
    it: without a budget nothing is composed, and signing, SQLite and the disk are left; after a restart of the process
    no cache knows how many rounds still fit.
    """
    count, budget = charges // OPENINGS, Budget(2.0, DELTA)
    composed = _apart(folder / "with.sqlite", 0, OPENINGS, count, budget)
    bare = _apart(folder / "without.sqlite", 0, OPENINGS, count, None)
    restarted = _apart(folder / "with.sqlite", charges, 1, 1, budget)
    if abs(composed.epsilon - (expected := accountant.epsilon(_ROUND * charges, DELTA))) > 1e-6:
        raise RuntimeError(f"the ledger says epsilon {composed.epsilon:.6g} and its charges come to {expected:.6g}")
    accounting = max(0.0, composed.seconds - bare.seconds)
    yield value_row(f"accounting_seconds_{charges}_charges", accounting, "s", quick, at_most=2.0)
    yield value_row(f"signing_seconds_{charges}_charges", bare.seconds, "s", quick)
    yield value_row(f"disk_seconds_{charges}_charges", bare.waited, "s", quick)
    yield value_row("accounting_seconds_first_charge_of_a_process", restarted.seconds, "s", quick)


class Spent(NamedTuple):
    """Processor time of some charges, how much longer they took on the clock, and epsilon after them."""

    seconds: float
    waited: float
    epsilon: float


def charge(path: Path, first: int, openings: int, count: int, budget: Budget | None) -> Spent:
    """Open a ledger so often and charge it ``count`` times each, from round ``first`` on; imports are not timed."""
    accountant.epsilon([DPSGD(noise_multiplier=9.0, sampling_rate=0.5, steps=1)], DELTA)
    wall, processor = time.perf_counter(), time.process_time()
    for opening in range(openings):
        with closing(Ledger(path, _IDENTITY, _OWNER, budget)) as ledger:
            for number in range(count):
                ledger.charge("run", first + opening * count + number, 1, _ROUND, _DATA, simulated=False)
    seconds, elapsed = time.process_time() - processor, time.perf_counter() - wall
    return Spent(seconds, max(0.0, elapsed - seconds), accountant.epsilon(read(path).releases, DELTA))


def _apart(path: Path, first: int, openings: int, count: int, budget: Budget | None) -> Spent:
    """The same in a new process, which knows nothing but the file."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(charge, path, first, openings, count, budget).result()


def crash_rows(count: int, quick: bool) -> Iterator[Row]:
    """Processes killed while they charge and release, and after how many of these a release was in no ledger."""
    found = crash_points.crash_points(count, seed=5)
    goal, met = (None, None) if quick else (200, found.run >= 200)
    yield Row("crash_points_run", found.run, "kills", None, None, None, goal, met, quick)
    yield value_row("crash_points_under_counted", found.under_counted, "kills", quick, at_most=0)
    yield value_row("crash_points_in_commit", found.in_commit, "kills", quick)


def step_rows(quick: bool) -> list[Row]:
    """Steps with safe noise against Opacus's with torch's; the worse of all models first."""
    from benchmarks import steps

    found = steps.rows(quick)
    name = "secure_noise_step_vs_torch_noise_step"
    worst = max(row.value for row in found if row.name.startswith(name))
    return [value_row(name, worst, "x", quick, at_most=steps.GOAL), *found]


def falsified_rows(kinds: Sequence[str], quick: bool) -> list[Row]:
    """How many falsified copies of runs ``securefl verify`` does not notice, of how many; what it misses, by name."""
    from benchmarks import falsified

    missing: list[str] = []
    with tempfile.TemporaryDirectory(prefix="securefl-runs-") as place:
        for kind in track(kinds, "falsified runs", transient=True):
            missing += [f"missed: {name}, {kind}" for name in falsified.missed(_finished(kind, Path(place) / kind))]
    return [
        value_row("falsified_runs_missed", len(missing), "runs", quick, at_most=0),
        value_row("falsified_runs", len(kinds) * len(falsified.FALSIFICATIONS), "runs", quick),
        *(value_row(name, 1, "runs", quick, at_most=0) for name in missing),
    ]


def _finished(kind: str, folder: Path) -> Path:
    """A run of two rounds of the default pilot, with its ledgers in its folder."""
    from securefl import job
    from securefl.run import Run

    run = Run.create(job.from_pilot("breast-cancer", kind, rounds=2), folder)
    list(run.rounds())
    run.finish()
    return folder


def _client_level(noise: float, dimension: int, clients: int = 100) -> Plan:
    """A plan with client-level noise under masks, at the defaults."""
    names = tuple(f"client-{number}" for number in range(clients))
    return Plan(
        job="benchmark",
        protection="secagg",
        clients=names,
        weights=(1.0,) * clients,
        bound=1.0,
        minimum=SecAgg().minimum_of(clients),
        threshold=None,
        rounds=1,
        mechanism=SGD(sampling_rate=1.0, steps=1),
        optimizer=LocalOptimizer(0.1),
        architecture="none",
        dimension=dimension,
        model_seed=0,
        privacy=PrivacyTerms(client_level=ClientLevel(noise, 1.0), unit="client"),
    )


def _known_row(name: str, value: float, known: float, within: float, quick: bool) -> Row:
    """A figure whose value is known; met is whether ours is that."""
    return Row(name, value, "epsilon", None, None, None, known, abs(value - known) <= within, quick)
