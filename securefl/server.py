"""The coordinator's side: asks for rounds, adds up what it is given, moves the model where it can read it.

State is stored before anything is sent: a crash costs an attempt, never a repeated session id or a lost sum.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocols.aggregation.apply import ApplyServer, Commit, apply_request
from protocols.aggregation.marks import marked
from protocols.aggregation.messages import ApplyRequest
from protocols.aggregation.server import Aggregate, AggregationServer
from protocols.aggregation.session import Roster, Step, Terms
from protocols.base import Exchange, drive
from protocols.encoding.fixedpoint import FixedPoint
from protocols.errors import ConfigurationError, RoundAborted
from securefl import checkpoint, protection
from securefl.announcement import Announcement, KeyReceived, public_tag, terms
from securefl.data import Dataset
from securefl.deliveries import deliver_key, deliver_model
from securefl.errors import BadInput, RoundFailed
from securefl.keystream import local_work
from securefl.plan import LocalOptimizer, Plan
from securefl.privacy.mechanism import Mechanism
from securefl.protection import Protection
from securefl.store import Store
from securefl.strategy import federated_average

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Outcome:
    """One committed round, as the server knows it. ``dropped`` maps clients to where or why they were lost;
    ``disputes`` maps those whose shares are in dispute to those who say that they do not open.
    """

    round: int
    attempt: int
    contributors: tuple[str, ...]
    recovered: tuple[str, ...]
    dropped: Mapping[str, str]
    accuracy: float | None
    disputes: Mapping[str, frozenset[str]] = field(default_factory=dict)


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
        mechanism: Mechanism,
        optimizer: LocalOptimizer,
        *,
        weights: Mapping[str, float] | None = None,
        test: Dataset | None = None,
        seed: int = 0,
        job: str = "run",
        run: str | None = None,
        store: Store | None = None,
    ) -> None:
        self._factory = model
        self._protection = protection
        self._mechanism = mechanism
        self._optimizer = optimizer
        self._weights = dict(weights or {})
        self._test = test
        self._seed = seed
        self._job = job
        self._store = store or Store()
        self._state = checkpoint.load(self._store)
        if not self._state.run:
            self._save(run=run or os.urandom(16).hex())
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
        return np.frombuffer(self._state.model, "<f4") if self._state.model else None

    def enrol(self, roster: Mapping[str, bytes]) -> Plan:
        """Fix the clients and with them the public plan. Raises ``BadInput`` for a plan that could fail later."""
        from securefl import training, vector

        module = vector.build(self._factory, self._seed)
        training.check(module)
        first = vector.flatten(module)
        clients = tuple(sorted(roster))
        self._roster = Roster(dict(roster))
        self._plan = Plan(
            job=self._job,
            protection=self._protection.kind,
            clients=clients,
            weights=tuple(self._weights.get(name, 1.0) for name in clients),
            bound=self._protection.bound,
            minimum=self._protection.minimum_of(len(clients)),
            threshold=self._protection.threshold,
            mechanism=self._mechanism,
            optimizer=self._optimizer,
            architecture=vector.architecture(module),
            dimension=len(first),
            model_seed=self._seed,
            colluders=self._protection.colluders,
            bits=self._protection.bits,
            corrupt=self._protection.corrupt,
            dropout=self._protection.dropout,
        )
        self._check()
        if not self._protection.sealed and not self._state.model:
            encoded = first.astype("<f4").tobytes()
            self._save(model=encoded, tag=public_tag(encoded))
        return self._plan

    def set_up(self, exchange: Exchange) -> None:
        """Before the first round under CKKS: have a client make the key and relay it. Otherwise nothing to do."""
        if not self._protection.sealed or self._state.key_id:
            return
        try:
            delivered = deliver_key(self._announcement(), self._known_roster(), exchange)
        except RoundAborted as error:
            raise _failed(error) from error
        if len(delivered.holders) < self.plan.minimum:
            raise RoundFailed(
                f"only {len(delivered.holders)} clients received the CKKS key: {_named(delivered.faults)}"
            )
        held = KeyReceived.decoded(delivered.word)
        self._save(key_id=held.key_id, tag=held.tag)

    def round(self, exchange: Exchange, without: Collection[str] = ()) -> Outcome:
        """Run one attempt at the next round, leaving out the clients in ``without``.

        Raises ``RoundFailed`` if too few clients are left; the model is then unchanged, and the next attempt a new one.
        Under CKKS, if a sum was formed but too few were there to apply it, the next call hands out that sum again.
        """
        if self._state.pending is not None:
            return self._finish_pending(exchange)
        self._catch_up(exchange)
        self._save(attempt=self._state.attempt + 1)
        number = self._state.round + 1
        agreed = self._terms(number)
        text = self._announcement(number).encoded()
        invited = {name: text for name in self.plan.clients if name not in without}
        try:
            aggregate = drive(AggregationServer(agreed, invited, self._work), exchange)
        except RoundAborted as error:
            self._note_behind(error.faults)
            raise _failed(error) from error
        self._note_behind(aggregate.faults)
        if self._protection.sealed:
            return self._apply(agreed, aggregate, exchange)
        return self._move(number, aggregate)

    def _move(self, number: int, aggregate: Aggregate) -> Outcome:
        decoder = protection.parameters(self.plan)
        if not isinstance(decoder, FixedPoint):
            raise TypeError("only a fixed-point sum can be read by the server")
        total = decoder.decode(aggregate.sum.total, aggregate.sum.uploads)
        start = np.frombuffer(self._state.model, "<f4")
        moved = federated_average(self.plan, start, total, aggregate.contributors).tobytes()
        self._save(round=number, model=moved, tag=public_tag(moved))
        return self._outcome(aggregate, self._accuracy(moved))

    def _apply(self, agreed: Terms, aggregate: Aggregate, exchange: Exchange) -> Outcome:
        request = apply_request(agreed, aggregate.sum)
        self._save(pending=request)
        commit = self._hand_out(agreed, request, exchange)
        outcome = self._outcome(aggregate, commit.accuracy)
        late = {name: f"exchange {Step.APPLY:d}" for name in commit.behind}
        return replace(outcome, dropped={**late, **commit.faults, **outcome.dropped})

    def _finish_pending(self, exchange: Exchange) -> Outcome:
        """Hand out again, byte for byte, a sum that was formed but not committed; the round is not formed again."""
        request = self._state.pending
        if request is None:
            raise BadInput("no sum is waiting to be applied")
        self._catch_up(exchange)
        agreed = self._terms(request.round, request.attempt)
        commit = self._hand_out(agreed, request, exchange)
        senders = tuple(signed.authenticate(self._known_roster()).sender for signed in request.inputs)
        recovered = tuple(sorted(set(marked(request.cohort, request.shared)) - set(senders)))
        dropped = {name: "before the restart" for name in self.plan.clients if name not in senders}
        return Outcome(self._state.round, request.attempt, senders, recovered, dropped, commit.accuracy)

    def _hand_out(self, agreed: Terms, request: ApplyRequest, exchange: Exchange) -> Commit:
        try:
            commit = drive(ApplyServer(agreed, request), exchange)
        except RoundAborted as error:
            self._note_behind(error.faults)
            waiting = f"The sum of round {request.round} is kept and handed out again when more clients are back."
            raise _failed(error, waiting) from error
        self._save(round=request.round, tag=commit.tag, evidence=commit.evidence, behind=commit.behind, pending=None)
        return commit

    def _catch_up(self, exchange: Exchange) -> None:
        """Relay the model, from one who has it, to those who missed a sum; who stays silent is asked next time."""
        if not self._state.behind:
            return
        state = self._state
        try:
            announced = self._announcement(state.round)
            delivered = deliver_model(announced, self._known_roster(), state.evidence, state.behind, exchange)
        except RoundAborted:  # nobody who has the model answers: the round goes on without those who lack it
            return
        self._save(behind=tuple(name for name in state.behind if name not in delivered.holders))

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

    def _note_behind(self, faults: Mapping[str, str]) -> None:
        missed = {name for name, why in faults.items() if why == "refused: behind"}
        if missed:
            self._save(behind=tuple(sorted({*self._state.behind, *missed})))

    def _accuracy(self, model: bytes) -> float | None:
        from securefl import evaluation, vector

        if self._test is None:
            return None
        module = vector.build(self._factory, self._seed)
        vector.load(module, np.frombuffer(model, "<f4"))
        return evaluation.accuracy(module, self._test)

    def _announcement(self, number: int = 0) -> Announcement:
        return Announcement(self._state.run, number, self._state.attempt, self.plan, self._state.model, self._state.tag)

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
        unknown = sorted(set(self._weights) - set(self.plan.clients))
        if unknown:
            raise BadInput(f"weights name clients that are not on the roster: {', '.join(unknown)}")
        try:
            protection.parameters(self.plan)
            self._terms(1)
        except ConfigurationError as error:
            raise BadInput(str(error)) from error

    def _save(self, **changes: object) -> None:
        self._state = msgspec.structs.replace(self._state, **changes)
        checkpoint.save(self._store, self._state)


def _failed(error: RoundAborted, then: str = "The model is unchanged.") -> RoundFailed:
    lost = {**error.dropped, **error.faults}
    return RoundFailed(f"{error}. Lost: {_named(lost)}. {then}", lost, error.disputes)


def _named(faults: Mapping[str, str]) -> str:
    return "; ".join(f"{name} ({why})" for name, why in sorted(faults.items())) or "nobody"
