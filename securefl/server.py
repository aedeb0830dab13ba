"""The coordinator's side: asks for rounds, adds up what it is given, moves the model where it can read it.

State is stored before anything is sent: a crash costs an attempt, never a repeated session id or a lost sum.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from protocols.aggregation.apply import apply_request
from protocols.aggregation.marks import marked
from protocols.aggregation.server import Aggregate, AggregationServer
from protocols.aggregation.session import Roster, Step, Terms
from protocols.base import Exchange, drive
from protocols.encoding.fixedpoint import FixedPoint
from protocols.errors import ConfigurationError, RoundAborted
from securefl import global_state, protection
from securefl.announcement import Announcement, public_tag, terms
from securefl.checkpoint import Kept, State
from securefl.data import Dataset
from securefl.draft import Draft
from securefl.errors import BadInput
from securefl.keystream import local_work
from securefl.plan import LocalOptimizer, Plan, PrivacyTerms
from securefl.privacy.mechanism import Training
from securefl.protection import Protection
from securefl.relay import Relay, failed
from securefl.releases import releases
from securefl.store import Store
from securefl.strategy import federated_average
from securefl.witnesses import Witnesses

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Outcome:
    """One committed round, as the server knows it. ``dropped`` maps clients to where or why they were lost;
    ``disputes`` maps those whose shares are in dispute to those who say that they do not open. ``void``: clients could
    not decrypt the sum and kept the model from before.
    """

    round: int
    attempt: int
    contributors: tuple[str, ...]
    recovered: tuple[str, ...]
    dropped: Mapping[str, str]
    accuracy: float | None
    disputes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    void: bool = False


class Server:
    """Coordinates one run. Holds no client's key; under CKKS neither a decryption key nor the model.

    ``model`` builds the architecture (its first values come from ``seed``); ``weights`` are declared constants in
    (0, 1]; ``test`` is a public test set. ``run`` names a new run (default: at random). ``store`` outlives the process
    where it is a file.
    """

    def __init__(
        self,
        model: Callable[[], nn.Module],
        protection: Protection,
        mechanism: Training,
        optimizer: LocalOptimizer,
        *,
        weights: Mapping[str, float] | None = None,
        privacy: PrivacyTerms = PrivacyTerms(),  # noqa: B008
        test: Dataset | None = None,
        seed: int = 0,
        job: str = "run",
        run: str | None = None,
        store: Store | None = None,
    ) -> None:
        self._factory = model
        self._protection = protection
        self._draft = Draft(job, protection, mechanism, optimizer, dict(weights or {}), seed, privacy)
        self._test = test
        self._seed = seed
        store = store or Store()
        self._kept = Kept(store)
        self._witnesses = Witnesses(store)
        if not self._kept.state.run:
            self._kept.save(run=run or os.urandom(16).hex())
        self._work = local_work()
        self._plan: Plan | None = None
        self._roster: Roster | None = None

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

    def model(self) -> NDArray[np.float32] | None:
        """The global model's flat parameters, or None where the server cannot read it."""
        vector = self._vector
        return None if vector is None else global_state.parameters(self.plan, vector)

    @property
    def measured(self) -> global_state.Measured | None:
        """What the last round measured on held-out records; None also where the server cannot read it."""
        vector = self._vector
        return None if vector is None else global_state.measured(self.plan, vector)

    @property
    def _vector(self) -> NDArray[np.float32] | None:
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
            self._kept.save(model=encoded, tag=public_tag(encoded))
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
            return self._finish_pending(exchange)
        if self._protection.sealed:
            self._relay.prepare(exchange)
        self._kept.save(attempt=self._state.attempt + 1)
        number = self._state.round + 1
        agreed = self._terms(number)
        text = self._announcement(number).encoded()
        invited = {name: text for name in self.plan.clients if name not in without}
        try:
            aggregate = drive(AggregationServer(agreed, invited, self._work, self._admit), exchange)
        except RoundAborted as error:
            self._relay.note_behind(error.faults)
            raise failed(error) from error
        self._relay.note_behind(aggregate.faults)
        self._note_charged(aggregate)
        if self._protection.sealed:
            return self._apply(agreed, aggregate, exchange)
        return self._move(number, aggregate)

    def _admit(self, client: str, shown: bytes) -> None:
        """Leave out, by name, who shows an older head of its ledger than before."""
        self._witnesses.see(self._state.run, self._known_roster().public_key(client), client, shown)

    def _note_charged(self, aggregate: Aggregate) -> None:
        if releases(self.plan):
            for name in aggregate.contributors:
                self._witnesses.contributed(self._state.run, self._known_roster().public_key(name))

    def _move(self, number: int, aggregate: Aggregate) -> Outcome:
        decoder = protection.parameters(self.plan)
        if not isinstance(decoder, FixedPoint):
            raise TypeError("only a fixed-point sum can be read by the server")
        total = decoder.decode(aggregate.sum.total, aggregate.sum.uploads)
        start = np.frombuffer(self._state.model, "<f4")
        moved = federated_average(self.plan, start, total, aggregate.contributors).tobytes()
        self._kept.save(round=number, model=moved, tag=public_tag(moved))
        return self._outcome(aggregate, self._accuracy(moved))

    def _apply(self, agreed: Terms, aggregate: Aggregate, exchange: Exchange) -> Outcome:
        request = apply_request(agreed, aggregate.sum)
        self._kept.save(pending=request)
        commit = self._relay.hand_out(agreed, request, exchange)
        outcome = self._outcome(aggregate, commit.accuracy)
        late = {name: f"exchange {Step.APPLY:d}" for name in commit.behind}
        return replace(outcome, dropped={**late, **commit.faults, **outcome.dropped}, void=commit.void)

    def _finish_pending(self, exchange: Exchange) -> Outcome:
        """Hand out again, byte for byte, a sum that was formed but not committed; the round is not formed again."""
        request = self._state.pending
        if request is None:
            raise BadInput("no sum is waiting to be applied")
        self._relay.catch_up(exchange)
        agreed = self._terms(request.round, request.attempt)
        commit = self._relay.hand_out(agreed, request, exchange)
        senders = tuple(signed.authenticate(self._known_roster()).sender for signed in request.inputs)
        recovered = tuple(sorted(set(marked(request.cohort, request.shared)) - set(senders)))
        dropped = {name: "before the restart" for name in self.plan.clients if name not in senders}
        return Outcome(
            self._state.round, request.attempt, senders, recovered, dropped, commit.accuracy, void=commit.void
        )

    def _outcome(self, aggregate: Aggregate, accuracy: float | None) -> Outcome:
        # A refusal or a fault says more than "exchange 2": show it.
        dropped = {**aggregate.dropped, **aggregate.faults}
        return Outcome(
            self._state.round,
            self._state.attempt,
            aggregate.contributors,
            aggregate.sum.recovered,
            dropped,
            accuracy,
            aggregate.disputes,
        )

    def _accuracy(self, model: bytes) -> float | None:
        from securefl import evaluation

        vector = np.frombuffer(model, "<f4")
        return evaluation.accuracy_of(self._factory, self._seed, global_state.parameters(self.plan, vector), self._test)

    def _announcement(self, number: int = 0) -> Announcement:
        state = self._state
        fresh = bool(state.key_id) and state.round == state.key_round
        return Announcement(
            state.run,
            number,
            state.attempt,
            self.plan,
            state.model,
            state.tag,
            state.key_id,
            state.evidence if fresh else (),
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
