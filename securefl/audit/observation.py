"""What the aggregate shows of canaries, round by round, once all that the adversary knows is taken off."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from securefl import global_state, protection, training, vector
from securefl.audit import canaries
from securefl.audit.stage import Stage, Step, Terms
from securefl.data import Dataset
from securefl.errors import BadInput
from securefl.job import Job
from securefl.job.federation import Federation
from securefl.privacy.mechanism import DPSGD, SGD
from securefl.releases import releases
from securefl.strategy import divisor


@dataclass(frozen=True)
class Sight:
    """One round. ``scores``, shape (canaries,): of each canary, in clips, 1 for each step that it took part in, and
    noise. ``known``, by client, shape (canaries,): the same of noise that the adversary knows. ``elsewhere``: by
    parameter of the model itself, the sum of squares of what moved it, in clips, and how many numbers it has.
    """

    scores: NDArray[np.float64]
    known: Mapping[str, NDArray[np.float64]]
    elsewhere: Mapping[str, tuple[float, int]]


@dataclass(frozen=True)
class Audited:
    """An audit that is ready to run. ``included``, shape (canaries,): which are there. ``audited``: whose noise is
    unknown, and whose ledgers are taken at their word.
    """

    stage: Stage
    included: NDArray[np.bool_]
    audited: tuple[str, ...]
    sights: Iterator[Sight]

    def charged(self, client: str) -> int:
        """For how many rounds, attempts included, its ledger says that it was charged all that a round releases."""
        entries = self.stage.client(client).account.ledger.entries()
        return sum(entry.releases == releases(self.stage.plan) for entry in entries)

    def contributed(self, client: str) -> int:
        """To how many rounds it did contribute."""
        return sum(client in record.contributors for record in self.stage.records)


def of_records(
    job: Job, federation: Federation, client: str, included: NDArray[np.bool_], seed: int | None = None
) -> Audited:
    """Record-level canaries among the records of ``client``, which noises as ever; the others' noise is known.

    ``seed``: of the unknown noise, in audits that are to be repeated.
    """
    if not isinstance(job.mechanism, DPSGD):
        raise BadInput("this job trains without DP-SGD: there is no record-level noise to audit")
    data = {name: federation.load(name) for name in federation.clients}
    if client not in data:
        raise BadInput(f"there is no client {client!r} in this job: name one of {', '.join(data)}")
    factory = canaries.marked(federation.model, data[client], _classes(job, federation), len(included))
    real = data.pop(client)
    own = canaries.with_canaries(real, included)
    records = {client: own, **{name: canaries.unmarked(other) for name, other in data.items()}}
    terms = Terms(job.shield, job.mechanism, replace(job.terms, held_out=None), frozenset([client]), seed)
    stage = Stage(job, terms, factory, dict(sorted(records.items())))
    # What one record's clipped gradient, in a step, moves the update by (with momentum, the last step).
    moved = job.optimizer.learning_rate * job.mechanism.clip / (job.mechanism.sampling_rate * own.declared_size)
    _refuse_cut_noise(job, moved * job.mechanism.noise_multiplier * math.sqrt(job.mechanism.steps))
    known = canaries.unmarked(real)
    sights = (_record_sight(stage, client, known, moved, step) for step in stage.steps())
    return Audited(stage, included, (client,), sights)


def of_clients(job: Job, federation: Federation, included: NDArray[np.bool_], seed: int | None = None) -> Audited:
    """Canary clients: as many clients as canaries, of which those that are not ``included`` move no row.

    All noise is unknown but that of the contributors whom the plan expects nothing of.
    """
    level = job.terms.client_level
    if level is None:
        raise BadInput("this job hides no clients: there is no client-level noise to audit")
    like = federation.load(federation.clients[0])
    factory = canaries.marked(federation.model, like, _classes(job, federation), len(included))
    names = [f"canary-{index:05d}" for index in range(len(included))]
    records = {name: canaries.canary_alone(like, index if included[index] else -1) for index, name in enumerate(names)}
    shield = replace(job.shield, minimum=None, threshold=None)  # those of a job are for its own number of clients
    unknown = frozenset(names[: shield.honest(len(names))])
    terms = Terms(shield, SGD(1.0, 1), replace(job.terms, held_out=None), unknown, seed)
    stage = Stage(job, terms, factory, records)
    return Audited(stage, included, tuple(names), (_client_sight(stage, step) for step in stage.steps()))


def _refuse_cut_noise(job: Job, deviation: float) -> None:
    """What is cut off at the encoding's bound would look like too little noise, though epsilon holds."""
    deviation /= 1 - job.optimizer.momentum
    if _DEVIATIONS * deviation > job.protection.bound:
        raise BadInput(
            f"an update's noise has a deviation of up to {deviation:.3g} and is cut off at protection.bound "
            f"{job.protection.bound:g}: to audit it, raise the bound to {_DEVIATIONS * deviation:.3g}"
        )


_DEVIATIONS: Final = 6


def _record_sight(stage: Stage, client: str, real: Dataset, moved: float, step: Step) -> Sight:
    plan, module = stage.plan, stage.module(step.before)
    weights = dict(zip(plan.clients, plan.weights, strict=True))
    others = {name: stage.update_of(name, step) for name in stage.known(step.record.contributors)}
    total = _moved(stage, step) * divisor(plan, step.record.contributors)
    for name, sent in others.items():
        total -= weights[name] * sent
    own = total / (weights[client] * moved)
    signal = np.zeros(len(own))
    if plan.mechanism.sampling_rate == 1:  # else nobody knows which of the records were in it
        signal = stage.signal_of(client, real, step) / moved
    known = {name: _scores(module, sent) / moved for name, sent in others.items()}
    return Sight(_scores(module, own), known, _squares(module, own - signal))


def _client_sight(stage: Stage, step: Step) -> Sight:
    """Updates are in clips, and the divisor is the number of clients, whoever contributed."""
    plan, module = stage.plan, stage.module(step.before)
    known = {name: stage.noise_of(name, step) for name in stage.known(step.record.contributors)}
    steps = np.float64(protection.parameters(plan).step)
    total: NDArray[np.float64] = _moved(stage, step) * (len(plan.clients) / global_state.clip(plan, step.before))
    for noise in known.values():
        total -= noise[: plan.dimension] * steps
    seen = {name: _scores(module, noise[: plan.dimension] * steps) for name, noise in known.items()}
    return Sight(_scores(module, total), seen, _squares(module, total))


def _squares(module: canaries.Marked, flat: NDArray[np.float64]) -> dict[str, tuple[float, int]]:
    parts = canaries.elsewhere(module, flat).items()
    return {name: (float(part @ part), part.size) for name, part in parts}


def _moved(stage: Stage, step: Step) -> NDArray[np.float64]:
    """How far the round moved the parameters."""
    moved: NDArray[np.float64] = step.after.astype(np.float64) - step.before
    return moved[: stage.plan.dimension]


def _scores(module: canaries.Marked, flat: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = canaries.rows(module, flat) @ canaries.direction(module)
    return found


def _classes(job: Job, federation: Federation) -> int:
    """The model's number of outputs."""
    like = federation.load(federation.clients[0])
    return training.classes(vector.build(federation.model, job.model.seed), like)
