"""A canary audit from a job to its result: who is audited, what is claimed, what was seen, what follows from it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl import vector
from securefl.audit import assessment
from securefl.audit.assessment import Question, Scores
from securefl.audit.checks import Declared
from securefl.audit.observation import Audited, Sight, of_clients, of_records
from securefl.audit.result import Audit
from securefl.calibration import calibrated
from securefl.errors import BadInput
from securefl.job import Job
from securefl.job.federation import Federation
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD
from securefl.privacy.simulation import seeded
from securefl.releases import releases
from securefl.report.software import versions

RECORD_CANARIES: Final = 1000
CLIENT_CANARIES: Final = 100


def audit(
    job: Job,
    *,
    client: str | None = None,
    count: int | None = None,
    headline: str | None = None,
    seed: int | None = None,
    watch: Callable[[int, Sight], None] = lambda number, sight: None,
) -> Audit:
    """Audit all rounds of ``job`` with ``count`` canaries; ``watch`` is called after each. Nothing real is charged.

    ``client``: the audited one, where records are (default: the first). ``headline``: the method that decides.
    ``seed``: coins and noise come from it, in trials of the audit itself that are to be repeated. The result is about
    the code, noise and accounting that run here, against an adversary who knows all other data and noise. Raises
    ``BadInput`` for a job without noise, and for a headline that does not apply.
    """
    started = time.perf_counter()
    federation = job.federation()
    job = calibrated(job, vector.build(federation.model, job.model.seed))
    ready = _ready(job, federation, client, count, seed)
    declared = _declared(job)
    headline = headline or assessment.default_headline(declared)
    assessment.check_headline(headline, declared)
    seen = []
    for number, sight in enumerate(ready.sights, 1):
        seen.append(sight)
        watch(number, sight)
    scores = _scores(ready, seen)
    asked = Question(declared, _claim(ready), _delta(job), headline)
    return Audit(
        job=job.name,
        client="every client" if job.client_level else ready.audited[0],
        unit=job.privacy.unit,
        mechanism=job.mechanism,
        optimizer=job.optimizer,
        level=job.terms.client_level,
        protection=job.protection.kind,
        minimum=job.minimum,
        colluders=job.protection.colluders,
        threshold=job.shield.threshold,
        released=releases(ready.stage.plan),
        asked=asked,
        scores=scores,
        found=assessment.assess(scores, asked),
        seconds=time.perf_counter() - started,
        software=versions(),
    )


def _ready(job: Job, federation: Federation, client: str | None, count: int | None, seed: int | None) -> Audited:
    if not job.client_level:
        coins = _coins(count or RECORD_CANARIES, seed)
        return of_records(job, federation, client or federation.clients[0], coins, seed)
    if client is not None:
        raise BadInput("this job hides whole clients: all are audited at once, leave --client out")
    return of_clients(job, federation, _coins(count or CLIENT_CANARIES, seed), seed)


def _coins(count: int, seed: int | None) -> NDArray[np.bool_]:
    """Fair and independent, from the operating system unless there is a seed."""
    random = os.urandom if seed is None else seeded(seed, "coins")
    return (np.frombuffer(random(count), np.uint8) % 2).astype(np.bool_)


def _declared(job: Job) -> Declared:
    level = job.terms.client_level
    if level is not None:
        return Declared(level.noise_multiplier, (1.0,), 1.0)
    if not isinstance(job.mechanism, DPSGD):
        raise BadInput("this job trains without DP-SGD: there is no noise to audit")
    weights = _weights(job.optimizer, job.mechanism.steps)
    noise = job.mechanism.noise_multiplier * math.sqrt(math.fsum(weight**2 for weight in weights))
    return Declared(noise, weights, job.mechanism.sampling_rate)


def _weights(optimizer: LocalOptimizer, steps: int) -> tuple[float, ...]:
    """How much of each step's gradient is in the update: with momentum m, 1 + m + m^2 + ... to the last step."""
    found = [1.0]
    for _ in range(steps - 1):
        found.insert(0, 1.0 + optimizer.momentum * found[0])
    return tuple(found)


def _scores(ready: Audited, seen: list[Sight]) -> Scores:
    if not seen:
        raise BadInput("the job has no round: there is nothing to audit")
    names = sorted(set.intersection(*(set(sight.known) for sight in seen)))
    contributed = {name: ready.contributed(name) for name in ready.audited}
    return Scores(
        canaries=len(ready.included),
        rounds=len(seen),
        values=_packed([sight.scores for sight in seen]),
        included=ready.included.astype(np.uint8).tobytes(),
        known={name: _packed([sight.known[name] for sight in seen]) for name in names},
        charges={name: (ready.charged(name), times) for name, times in contributed.items()},
        elsewhere=_added([sight.elsewhere for sight in seen]) if ready.stage.plan.mechanism.steps == 1 else {},
    )


def _added(rounds: list[Mapping[str, tuple[float, int]]]) -> dict[str, tuple[float, int]]:
    """Sums of squares, and how many numbers, of all rounds together."""
    return {
        name: (math.fsum(one[name][0] for one in rounds), sum(one[name][1] for one in rounds)) for name in rounds[0]
    }


def _packed(columns: list[NDArray[np.float64]]) -> bytes:
    return np.stack(columns, axis=1).astype("<f4").tobytes()


def _claim(ready: Audited) -> float:
    """The largest epsilon that an audited client's own ledger claims."""
    return max(ready.stage.client(name).epsilon() or 0.0 for name in ready.audited)


def _delta(job: Job) -> float:
    if job.budget is None:
        raise BadInput("a job without a budget claims no epsilon: write privacy.epsilon and privacy.delta")
    return job.budget.delta
