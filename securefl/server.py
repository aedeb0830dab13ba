"""The coordinator's side: asks for rounds, adds up what it is given, moves the model where it can read it.

State is stored before anything is sent: a crash costs an attempt, never a repeated session id or a lost sum.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from protocols.aggregation.apply import apply_request
from protocols.aggregation.messages import ApplyRequest
from protocols.aggregation.server import Aggregate, AggregationServer
from protocols.aggregation.session import Roster, Terms
from protocols.base import Exchange, drive
from protocols.encoding.fixedpoint import FixedPoint
from protocols.errors import ConfigurationError, ProtocolError, RoundAborted
from securefl import global_state, protection
from securefl import strategy as strategies
from securefl.announcement import Announcement, shown, terms
from securefl.checkpoint import Kept, State
from securefl.data import Dataset
from securefl.draft import Draft
from securefl.errors import BadInput, NotARun
from securefl.keystream import local_work
from securefl.learning import ALL, PLAIN, Cohort, Strategy
from securefl.outcome import Outcome, outcome
from securefl.plan import LocalOptimizer, Plan, PrivacyTerms
from securefl.privacy.mechanism import Training
from securefl.privacy.noise import Random
from securefl.privacy.simulation import seeded
from securefl.protection import Protection
from securefl.relay import Relay, failed
from securefl.releases import releases
from securefl.sampling import available, grouped, sampled
from securefl.store import Store
from securefl.strategy import Summed
from securefl.witnesses import Witnesses

if TYPE_CHECKING:
    from torch import nn

    from securefl.job import Job


class Server:
    """Coordinates one run. Holds no client's key; under CKKS neither a decryption key nor the model.

    ``model`` builds the architecture (its first values come from ``seed``); ``rounds`` are all that the run may have;
    ``weights`` are declared constants in (0, 1]; ``test`` is a public test set. ``sampling``: a seed from which cohorts
    are drawn, in simulations. ``run`` names a new run (default: at
    random). ``store`` outlives the process where it is a file.
    """

    def __init__(
        self,
        model: Callable[[], nn.Module],
        protection: Protection,
        mechanism: Training,
        optimizer: LocalOptimizer,
        *,
        rounds: int,
        weights: Mapping[str, float] | None = None,
        privacy: PrivacyTerms = PrivacyTerms(),  # noqa: B008
        test: Dataset | None = None,
        seed: int = 0,
        job: str = "run",
        strategy: Strategy = PLAIN,
        cohort: Cohort = ALL,
        sampling: int | None = None,
        run: str | None = None,
        store: Store | None = None,
    ) -> None:
        self._factory = model
        self._protection = protection
        self._draft = Draft(
            job, protection, rounds, mechanism, optimizer, dict(weights or {}), seed, privacy, strategy, cohort
        )
        self._test = test
        self._seed = seed
        self._sampling = sampling
        store = store or Store()
        self._kept = Kept(store)
        self._witnesses = Witnesses(store)
        if not self._kept.state.run:
            self._kept.save(run=run or os.urandom(16).hex())
        self._work = local_work()
        self._plan: Plan | None = None
        self._roster: Roster | None = None

    @classmethod
    def of_job(
        cls, job: Job, model: Callable[[], nn.Module], test: Dataset | None, store: Store, run: str | None = None
    ) -> Server:
        """The one that a job describes, its noise given. ``run`` names a new run."""
        return cls(
            model,
            job.shield,
            job.mechanism,
            job.optimizer,
            rounds=job.rounds,
            weights=job.declared_weights,
            privacy=job.terms,
            test=test,
            seed=job.model.seed,
            job=job.name,
            strategy=job.server_step,
            cohort=job.asked,
            sampling=job.simulation.seed,
            run=run,
            store=store,
        )

    @property
    def plan(self) -> Plan:
        if self._plan is None:
            raise BadInput("the server has no roster yet: call enrol() with the clients' public keys")
        return self._plan

    @property
    def run(self) -> str:
        """The run's id."""
        return self._state.run

    @property
    def round_number(self) -> int:
        """The last committed round; 0 before the first."""
        return self._state.round

    @property
    def state(self) -> State:
        """All that it keeps between rounds."""
        return self._kept.state

    def adopt(self, state: State) -> None:
        """Go on from what another server of this run kept (:mod:`securefl.peers`)."""
        self._kept.adopt(state)

    def witness(self, shown: Mapping[str, bytes], contributors: Collection[str]) -> None:
        """Remember the ledger heads that clients showed to another server of this run, and who contributed there."""
        for client, head in shown.items():
            with suppress(ProtocolError):  # what contradicts an earlier head is remembered as that
                self._admit(client, head)
        self._note_charged(contributors)
        self._witnesses.save()

    @property
    def counts(self) -> dict[str, int]:
        """In how many committed rounds each client took part."""
        return {name: self._state.counts.get(name, 0) for name in self.plan.clients}

    @property
    def begun(self) -> bool:
        """Whether a round was ever tried."""
        return self._state.attempt > 0

    @property
    def last(self) -> Outcome | None:
        """How the last committed round ended; None before the first."""
        return self._state.outcome if self._state.pending is None else None

    def model(self) -> NDArray[np.float32] | None:
        """The global model's flat parameters, or None where the server cannot read it."""
        vector = self.vector
        return None if vector is None else global_state.parameters(self.plan, vector)

    @property
    def measured(self) -> global_state.Measured | None:
        """What the last round measured on held-out records; None also where the server cannot read it."""
        vector = self.vector
        return None if vector is None else global_state.measured(self.plan, vector)

    @property
    def vector(self) -> NDArray[np.float32] | None:
        """The model and what moves with it (:mod:`securefl.global_state`), where the server can read it."""
        return np.frombuffer(self._state.model, "<f4") if self._state.model else None

    def enrol(self, roster: Mapping[str, bytes]) -> Plan:
        """Fix the clients and with them the public plan. Raises ``BadInput`` for a plan that could fail later."""
        from securefl import vector

        module = vector.build(self._factory, self._seed)
        self._plan = self._draft.plan(module, sorted(roster))
        self._roster = Roster(dict(roster))
        self._check()
        if not self._protection.sealed and not self._state.model:
            encoded = global_state.first(self._plan, vector.flatten(module)).astype("<f4").tobytes()
            self._kept.save(model=encoded, tag=shown(self._plan, encoded).tag)
        return self._plan

    def set_up(self, exchange: Exchange) -> None:
        """Before the first round under CKKS: have a client make the key and relay it. Otherwise nothing to do."""
        if self._protection.sealed and not self._state.key_id:
            self._relay.prepare(exchange)

    def finish(self, exchange: Exchange) -> None:
        """After the last round under CKKS: bring who is behind up to date, and keep the model, sealed by a client."""
        if self._protection.sealed and self._state.pending is None:
            self._relay.catch_up(exchange)
            self._relay.seal(exchange)

    def round(self, exchange: Exchange, without: Collection[str] = ()) -> Outcome:
        """Run one attempt at the next round, leaving out the clients in ``without``.

        Raises ``RoundFailed`` if too few clients are left; the model is then unchanged, and the next attempt a new one.
        Under CKKS, if a sum was formed but too few were there to apply it, the next call hands out that sum again.
        """
        if self._state.pending is not None:
            return self._finish_pending(self._state.pending, exchange)
        started = time.perf_counter()
        if self._protection.sealed:
            self._relay.prepare(exchange)
        self._kept.save(attempt=self._state.attempt + 1)
        number = self._state.round + 1
        agreed = self._terms(number)
        text = self._announcement(number).encoded()
        draw = self._sampler(number, self._state.attempt)
        there = available(self.plan, number, self._state.counts, without)
        groups = grouped(self.plan, sampled(self.plan, there, draw), draw)
        aggregates = [self._sum(agreed, dict.fromkeys(group, text), exchange) for group in groups]
        formed = outcome(number, self._state.attempt, aggregates, started)
        if self._protection.sealed:
            return self._apply(agreed, aggregates[0], formed, exchange)
        return self._move(aggregates, formed)

    def _sum(self, agreed: Terms, invited: Mapping[str, bytes], exchange: Exchange) -> Aggregate:
        """One sum. Groups of a round share a session id, and no client is in two of them."""
        try:
            aggregate = drive(AggregationServer(agreed, invited, self._work, self._admit), exchange)
            self._note_charged(aggregate.contributors)
        except RoundAborted as error:
            self._relay.note_behind(error.faults)
            raise failed(error) from error
        finally:
            self._witnesses.save()
        self._relay.note_behind(aggregate.faults)
        return aggregate

    def _sampler(self, number: int, attempt: int) -> Random:
        """Where cohorts come from."""
        return os.urandom if self._sampling is None else seeded(self._sampling, "server", number, attempt, "cohort")

    def _admit(self, client: str, shown: bytes) -> None:
        """Leave out, by name, who shows an older head of its ledger than before."""
        self._witnesses.see(self._state.run, self._known_roster().public_key(client), client, shown)

    def _note_charged(self, contributors: Collection[str]) -> None:
        if releases(self.plan):
            for name in contributors:
                self._witnesses.contributed(self._state.run, self._known_roster().public_key(name))

    def _move(self, aggregates: Sequence[Aggregate], formed: Outcome) -> Outcome:
        decoder = protection.parameters(self.plan)
        if not isinstance(decoder, FixedPoint):
            raise TypeError("only a fixed-point sum can be read by the server")
        sums = [Summed(decoder.decode(one.sum.total, one.sum.uploads), one.contributors) for one in aggregates]
        start = np.frombuffer(self._state.model, "<f4")
        moved = strategies.of_groups(self.plan, start, sums, formed.round).tobytes()
        done = replace(formed, accuracy=self._accuracy(moved))
        tag = shown(self.plan, moved).tag
        self._kept.save(round=done.round, model=moved, tag=tag, outcome=done, counts=self._counted(done))
        return done

    def _counted(self, done: Outcome) -> dict[str, int]:
        """In how many rounds each client took part, this one included."""
        counts = dict(self._state.counts)
        for name in done.contributors:
            counts[name] = counts.get(name, 0) + 1
        return counts

    def _apply(self, agreed: Terms, aggregate: Aggregate, formed: Outcome, exchange: Exchange) -> Outcome:
        request = apply_request(agreed, aggregate.sum)
        self._kept.save(pending=request, outcome=formed, counts=self._counted(formed))
        return self._relay.hand_out(agreed, request, formed, exchange)

    def _finish_pending(self, request: ApplyRequest, exchange: Exchange) -> Outcome:
        """Hand out again, byte for byte, a sum that was formed but not committed; the round is not formed again."""
        formed = self._state.outcome
        if formed is None:
            raise NotARun("the server's stored state lacks the round that its sum is of: restore it from a backup")
        self._relay.catch_up(exchange)
        return self._relay.hand_out(self._terms(request.round, request.attempt), request, formed, exchange)

    def _accuracy(self, model: bytes) -> float | None:
        from securefl import evaluation

        vector = np.frombuffer(model, "<f4")
        return evaluation.accuracy_of(self._factory, self._seed, global_state.parameters(self.plan, vector), self._test)

    def _announcement(self, number: int = 0) -> Announcement:
        state = self._state
        known = shown(self.plan, state.model)
        fresh = bool(state.key_id) and state.round == state.key_round
        return Announcement(
            state.run,
            number,
            state.attempt,
            self.plan,
            known.model,
            state.tag,
            state.key_id,
            state.evidence if fresh else (),
            known.memory,
        )

    def _terms(self, number: int, attempt: int | None = None) -> Terms:
        tried = self._state.attempt if attempt is None else attempt
        return terms(
            self.plan, self._known_roster(), self._state.run, number, tried, self._state.tag, self._state.key_id
        )

    def _known_roster(self) -> Roster:
        if self._roster is None:
            raise BadInput("the server has no roster yet: call enrol() with the clients' public keys")
        return self._roster

    def _check(self) -> None:
        """Everything that could fail later because of the plan, tried now."""
        try:
            protection.parameters(self.plan)
            self._terms(1)
        except ConfigurationError as error:
            raise BadInput(str(error)) from error

    @property
    def _state(self) -> State:
        return self._kept.state

    @property
    def _relay(self) -> Relay:
        return Relay(self._kept, self._known_roster(), self._announcement)
