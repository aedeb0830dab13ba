"""A federation to be audited, in one process: the real protocol, with marked models and canaries among the records.

The adversary knows data and noise of everybody but whom it audits: their noise comes from a seed, so that it can make
its own copy of what they sent and take that off the aggregate.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from securefl import global_state, vector
from securefl.announcement import Announcement
from securefl.audit.canaries import Factory, Marked
from securefl.client import Client
from securefl.contribution import Material
from securefl.data import Dataset
from securefl.errors import RoundFailed
from securefl.job import Job
from securefl.plan import Plan, PrivacyTerms
from securefl.privacy.mechanism import DPSGD, Training
from securefl.privacy.noise import Random
from securefl.protection import Protection
from securefl.records import RoundRecord
from securefl.round import federate
from securefl.server import Server

_QUIET = 1e-6  # a noise multiplier
_SEED = 0  # of the noise that the adversary knows


@dataclass(frozen=True)
class Terms:
    """What of an audited plan may differ from its job's. ``unknown``: whose noise the adversary does not know;
    ``seed``: what that noise comes from, in audits that are to be repeated.
    """

    shield: Protection
    mechanism: Training
    privacy: PrivacyTerms
    unknown: frozenset[str]
    seed: int | None = None


@dataclass(frozen=True)
class Step:
    """One round as the adversary sees it: the global vector before and after, and how it was reached."""

    record: RoundRecord
    before: NDArray[np.float32]
    after: NDArray[np.float32]


class Stage:
    """Server and clients of an audit. ``data``: each client's, marked. ``records``: the rounds so far. Ledgers end with
    the process: nothing that an audit trains may be published.
    """

    def __init__(self, job: Job, terms: Terms, factory: Factory, data: Mapping[str, Dataset]) -> None:
        self.records: list[RoundRecord] = []
        self._factory = factory
        self._data = dict(data)
        self._unknown = terms.unknown
        self._seed = job.model.seed
        self._clients = {name: self._client(job, terms, name) for name in data}
        self._server = Server(
            factory,
            terms.shield,
            terms.mechanism,
            job.optimizer,
            rounds=job.rounds,
            weights=job.declared_weights if set(job.declared_weights) <= set(data) else None,
            privacy=replace(terms.privacy, simulated=True),
            seed=job.model.seed,
            job=f"audit of {job.name}",
        )

    @property
    def plan(self) -> Plan:
        """Known once the rounds have begun."""
        return self._server.plan

    def client(self, name: str) -> Client:
        """One of them."""
        return self._clients[name]

    def steps(self) -> Iterator[Step]:
        """All rounds, one after the other."""
        before: NDArray[np.float32] | None = None
        for record in federate(self._server, list(self._clients.values())):
            if before is None:
                before = global_state.first(self.plan, vector.flatten(self._built()))
            after = self._vector()
            self.records.append(record)
            yield Step(record, before, after)
            before = after

    def module(self, at: NDArray[np.float32]) -> Marked:
        """The marked model at a global vector."""
        module = self._built()
        vector.load(module, global_state.parameters(self.plan, at))
        return module

    def known(self, contributors: Collection[str]) -> list[str]:
        """Of the contributors, those whose noise the adversary knows."""
        return [name for name in contributors if name not in self._unknown]

    def update_of(self, name: str, step: Step) -> NDArray[np.float64]:
        """The adversary's own copy of what a client sent whose noise it knows."""
        material = Material(self._data[name], self._factory)
        sent = material.update(self.plan.at(step.record.round), step.before, self._random(name, step, "training"))
        return np.clip(sent.astype(np.float64), -self.plan.bound, self.plan.bound)

    def signal_of(self, name: str, records: Dataset, step: Step) -> NDArray[np.float64]:
        """What a client would have sent with these ``records`` and hardly any noise, if all of them are in each step:
        known to who knows the records.
        """
        if not isinstance(self.plan.mechanism, DPSGD):
            raise TypeError("only the noise of DP-SGD can be left out")
        quiet = replace(
            self.plan.at(step.record.round), mechanism=replace(self.plan.mechanism, noise_multiplier=_QUIET)
        )
        found = Material(records, self._factory).update(quiet, step.before, self._random(name, step, "training"))
        return found.astype(np.float64)

    def noise_of(self, name: str, step: Step) -> NDArray[np.int64]:
        """Its own copy of such a client's share of client-level noise, in whole steps of the encoding."""
        found = Material(self._data[name], self._factory).noise(self.plan, self._random(name, step, "noise"))
        return np.zeros(global_state.sent(self.plan), np.int64) if found is None else found

    def _client(self, job: Job, terms: Terms, name: str) -> Client:
        seed = terms.seed if name in terms.unknown else _SEED
        unit = terms.privacy.unit
        return Client(name, self._data[name], self._factory, budget=job.budget, unit=unit, seed=seed)

    def _random(self, name: str, step: Step, purpose: str) -> Random:
        done = step.record
        announced = Announcement(self._server.run, done.round, done.attempt, self.plan, b"", b"")
        return self._clients[name].account.random(announced, purpose)

    def _built(self) -> Marked:
        module = vector.build(self._factory, self._seed)
        if not isinstance(module, Marked):
            raise TypeError("an audit needs a marked model")
        return module

    def _vector(self) -> NDArray[np.float32]:
        run, number = self._server.run, self._server.round_number
        if self._server.vector is not None:
            return self._server.vector
        for client in self._clients.values():
            found = client.held(run).vector if client.model_round(run) == number else None
            if found is not None:
                return found
        raise RoundFailed("no client holds the model of the last round: run the audit again")
