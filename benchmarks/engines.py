"""Engines: what an exchange costs, whether sites reach the model of one process, and what is left when anything dies.

Sites are real: processes from provisioned kits, over mutual TLS on loopback; a server, its job and three processes a
site share this machine's cores. Quick strikes at two exchanges only.
"""

from __future__ import annotations

import itertools
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from benchmarks import chaos, large, ray_simulation
from benchmarks.deployed import Deployment, deployed
from benchmarks.rows import Row, value_row
from securefl.run import Run
from securefl.settings import Nvflare

TITLE = "Engines: sites over NVIDIA FLARE on loopback, actors on Ray, and faults"
_THREE = ("hospital-1", "hospital-2", "hospital-3")
_EXCHANGES = 40
_LARGE_ROUNDS = 4
QUICK_KILLS = (2, 3)  # exchanges, at each of which there are ten faults
KILLS = (0, 1, 2, 3, 4)


def rows(quick: bool) -> list[Row]:
    """The rows of this subject."""
    folder = Path(mkdtemp(prefix="securefl-engines-"))
    try:
        return [*_three(folder / "three", quick), *_faults(folder / "four", quick), _ray(quick)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ray(quick: bool) -> Row:
    return value_row("exchange_milliseconds_ray_100", ray_simulation.exchange_milliseconds(), "ms", quick)


def _three(folder: Path, quick: bool) -> Iterator[Row]:
    folder.mkdir()
    with deployed(folder, _THREE, large.SITE) as deployment:
        first = Run.create(large.job("secagg", _THREE, _LARGE_ROUNDS), folder / "secagg", engine=_engine(deployment))
        yield value_row("exchange_milliseconds_nvflare_3", 1e3 * _empty(first), "ms", quick, at_most=100.0)
        yield value_row("secagg_round_seconds_nvflare_3", _round(first), "s", quick)
        second = Run.create(large.job("ckks", _THREE, _LARGE_ROUNDS), folder / "ckks", engine=_engine(deployment))
        yield value_row("ckks_round_seconds_nvflare_3", _round(second), "s", quick)


def _engine(deployment: Deployment) -> Nvflare:
    return Nvflare(str(deployment.server.path), patience=90.0)


def _empty(run: Run) -> float:
    """Median seconds of an exchange of empty requests with all sites, down to their client processes and back."""
    exchange, taken = run._parties.exchange(1), []
    for _ in range(_EXCHANGES):
        began = time.perf_counter()
        answered = list(exchange(dict.fromkeys(_THREE, b"")))
        taken.append(time.perf_counter() - began)
        if len(answered) != len(_THREE):
            raise RuntimeError(f"{len(answered)} sites answered")
    return statistics.median(taken)


def _round(run: Run) -> float:
    """Median seconds of a round, training excluded. The first is left out: there keys are made."""
    try:
        records = list(run.rounds())
    finally:
        run.close()
    training = large.training_seconds(run.plan)
    return statistics.median(record.seconds for record in records[1:]) - training


def _faults(folder: Path, quick: bool) -> Iterator[Row]:
    folder.mkdir()
    with deployed(folder, chaos.NAMES) as deployment:
        yield _same_model(deployment, folder, quick)
        found = list(kills(deployment, folder, QUICK_KILLS if quick else KILLS))
        stated = sum(not one.problems for one in found)
        yield value_row("kills_run", len(found), "", quick)
        yield value_row("kills_as_stated_fraction", stated / len(found), "", quick)
        for one in found:
            for problem in one.problems:
                print(f"not as stated: {one.case}: {problem}")
        resumed = chaos.resumed(deployment, folder / "resumed")
        yield value_row("resume_seconds", resumed, "s", quick)


def _same_model(deployment: Deployment, folder: Path, quick: bool) -> Row:
    """1 if secagg and ckks at sites lead to the model that one process does."""
    same = True
    for protection in ("secagg", "ckks"):
        run = Run.create(chaos.job(protection), folder / protection, engine=_engine(deployment))
        try:
            list(run.rounds())
            run.finish()
        finally:
            run.close()
        apart = np.abs(chaos.model(deployment, run) - chaos.undisturbed(run.job, run.history)).max()
        same = same and bool(apart <= chaos.SAME)
    return value_row("local_vs_nvflare_same_model", float(same), "", quick)


def kills(deployment: Deployment, folder: Path, exchanges: tuple[int, ...]) -> Iterator[chaos.Found]:
    """All faults at these exchanges, under secagg and ckks in turn."""
    protections = itertools.cycle(("secagg", "ckks"))
    for number, case in enumerate(case for exchange in exchanges for case in chaos.at(exchange)):
        yield chaos.play(deployment, case, chaos.job(next(protections)), folder / f"case-{number}")
