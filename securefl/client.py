"""A data owner's side: holds data, keys and ledger, and answers requests by one verb.

Training happens inside exchange 2, after the ledger was charged (:mod:`securefl.attempt`). What the owner did not allow
is refused, whatever the server says. Nothing leaves but signed protocol messages and refusals: one fixed word.
"""

from __future__ import annotations

import hashlib
import os
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import KeysRequest, Refusal
from protocols.aggregation.session import Roster
from protocols.aggregation.states import Contribution
from protocols.base import Random
from protocols.delivery.messages import JoinRequest
from protocols.encoding import Encoding
from protocols.errors import Behind, ConfigurationError, ProtocolError, SessionSpent
from protocols.masking import Work
from protocols.primitives import Identity
from protocols.wire import decode, encode, kind
from securefl import holder_requests, protection
from securefl.account import Account, forgotten, load_identity
from securefl.announcement import Announcement, public_tag, terms
from securefl.attempt import Attempt
from securefl.attendance import Attendance
from securefl.closing import Endorsed, EndorseRequest, Stated, StateRequest
from securefl.contribution import Material
from securefl.data import Dataset
from securefl.errors import BadInput, BudgetExceeded, Refused, SecureFLError
from securefl.held_model import HeldModel
from securefl.joint import Suits, Task
from securefl.keyholder import KeyHolder
from securefl.keystream import fastest
from securefl.plan import Plan
from securefl.policy import Policy, check_announced, check_model, check_roster, check_round
from securefl.privacy.ledger import Ledger
from securefl.privacy.mechanism import Budget, Unit
from securefl.report.canonical import canonical, read
from securefl.report.document import Report
from securefl.report.endorsements import endorse
from securefl.report.statement import SignedStatement, sign
from securefl.store import Store
from securefl.sums import Sums
from securefl.testimony import statement

if TYPE_CHECKING:
    from torch import nn


_NEWEST_ERRORS = 1000


class Client:
    """One data owner. ``model`` is code that the owner installed; ``budget`` None admits only jobs without privacy.

    ``policy`` is what the owner takes part in; it may be replaced in a run and then holds from the next attempt on.
    ``ledger``, ``store`` and ``keep`` outlive the process where they are files; what must outlive the run, too, is in
    ``keep``: the identity, and heads of others' ledgers. ``unit``: of a ledger in memory. ``held_out`` are records to
    measure with, ``test`` is the public test set, needed where only clients can read the model. ``seed``: noise and
    samples come from it, which only simulations may do. ``device`` is where torch computes. ``errors`` is the owner's
    own log of why requests were refused, and of what went wrong in training. ``work`` is how masks and ciphertexts are
    made: a pool's ``map`` in it shares them out among processes.

    **Guarantee**: no update leaves before its cost is in the ledger, and none that the budget does not cover.
    """

    def __init__(
        self,
        name: str,
        data: Dataset,
        model: Callable[[], nn.Module],
        *,
        budget: Budget | None = None,
        policy: Policy | None = None,
        held_out: Dataset | None = None,
        test: Dataset | None = None,
        ledger: Ledger | None = None,
        store: Store | None = None,
        keep: Store | None = None,
        random: Random = os.urandom,
        unit: Unit = "record",
        seed: int | None = None,
        work: Work | None = None,
        device: str = "cpu",
    ) -> None:
        self.name = name
        self.policy = policy or Policy()
        self.errors: list[str] = []
        self._store = store or Store()
        self._keep = keep = keep or self._store
        self._attendance = Attendance(self._store)
        self._identity = load_identity(keep, random)
        ledger = ledger or forgotten(name, self._identity, budget, unit)
        if ledger.budget != budget:
            raise BadInput(f"{name}: the ledger was opened for another budget: open it with the same")
        self.account = Account(name, self._identity, ledger, keep, data, seed)
        self._material = Material(data, model, held_out, device, self._log)
        self._test = test
        self._random = random
        self._work = work or Work(fastest())
        self._accepted: tuple[Roster, Plan] | None = None
        self._attempt: Attempt | None = None
        self._keyholders: dict[str, KeyHolder] = {}
        self._one_at_a_time = Lock()  # between what is read from the store and what is written to it

    @property
    def budget(self) -> Budget | None:
        """The most that the owner allows to be spent on its data."""
        return self.account.ledger.budget

    @property
    def public_key(self) -> bytes:
        """The Ed25519 public key that others pin."""
        return self._identity.public

    @property
    def identity(self) -> Identity:
        """What this owner signs with, for what else runs in the owner's own process."""
        return self._identity

    def pin(self, roster: Mapping[str, bytes], plan: Plan, rounds: int = 0) -> None:
        """The owner's consent: these clients, by name and public key, and this plan. No other is taken part in.

        Raises ``Refused`` for a plan that contradicts the policy, the budget or the model that the owner installed, and
        ``BudgetExceeded`` where so many ``rounds`` of it would not fit into what is left of the budget.
        """
        self.consider(roster, plan, rounds)
        self.account.accept(plan, 0)
        self._accepted = (Roster(dict(roster)), plan)
        self._keyholders.clear()  # they trust the roster from before

    def consider(self, roster: Mapping[str, bytes], plan: Plan, rounds: int = 0) -> None:
        """Whether it could be consented to: raises as ``pin`` does, and changes nothing."""
        check_roster(plan, roster, self.name, self.public_key)
        self.policy.check(plan, self.name, self.budget)
        self.account.check_simulated(plan)
        check_model(plan, self._material)
        self.account.check(plan, rounds)

    def epsilon(self) -> float | None:
        """What the ledger has charged so far, at the budget's delta; None without a budget."""
        return None if self.budget is None else self.account.ledger.epsilon()

    def held(self, run: str) -> HeldModel:
        """What this client holds of the run's model (CKKS)."""
        holder = self._keyholder(run)
        return HeldModel(self._pinned()[1], self._material.model, holder.model, holder.round)

    def model(self, run: str) -> NDArray[np.float32] | None:
        """The run's current model, where this client holds it (CKKS)."""
        return self.held(run).parameters

    def model_round(self, run: str) -> int | None:
        """The round whose model this client holds, where it holds one (CKKS); 0 before the first."""
        return self._keyholder(run).round

    def handle(self, request: bytes) -> bytes:
        """Answer one request, whatever is in it. A refusal goes out as one word; the reason stays in ``errors``."""
        with self._one_at_a_time:
            try:
                return self._answer(request)
            except (ProtocolError, SecureFLError, ConfigurationError) as error:
                self._log(str(error))
                return encode(Refusal(_reason(error)))
            except Exception:  # the owner's own model or data code failed: the round must go on without this client
                self._log(traceback.format_exc())
                return encode(Refusal("failed"))

    def prepare(self, request: bytes, suits: Suits) -> Task | None:
        """What :meth:`Attempt.prepare` does; nothing where there is no attempt. What is wrong, ``handle`` will say."""
        with self._one_at_a_time, suppress(Exception):
            return None if self._attempt is None else self._attempt.prepare(request, suits)
        return None

    def _log(self, why: str) -> None:
        """Whoever can send requests can fill it: only the newest are kept."""
        self.errors.append(why)
        del self.errors[:-_NEWEST_ERRORS]

    def _answer(self, request: bytes) -> bytes:
        match kind(request):
            case KeysRequest.KIND:
                return self._begin(Announcement.decoded(decode(request, KeysRequest).announcement), request)
            case JoinRequest.KIND:
                return self._join(Announcement.decoded(decode(request, JoinRequest).announcement))
            case asked if asked in holder_requests.KINDS:
                return holder_requests.answer(request, self._keyholder)
            case StateRequest.KIND:
                return self._state(decode(request, StateRequest).run)
            case EndorseRequest.KIND:
                return self._endorse(decode(request, EndorseRequest))
            case _ if self._attempt is not None:
                return self._go_on(self._attempt, request)
            case _:
                raise SessionSpent("this client is in no session: it restarted, or the attempt is over")

    def _begin(self, announced: Announcement, request: bytes) -> bytes:
        self._attempt = None
        roster, plan = self._consent(announced.plan)
        check_round(plan, announced.round)
        self._attendance.require_open(announced.run)
        self.account.check_round(plan, announced.run, announced.round)  # before keys go out; the charge is what binds
        sealed = protection.protection_of(plan).sealed
        start, coder = (self._sealed_start if sealed else self._open_start)(announced)
        key_id, tag = (
            (announced.key_id, announced.tag) if sealed else (b"", public_tag(announced.model, announced.memory))
        )
        rule = self.policy.same_cohort
        sums = Sums(self._keep, rule, announced, b"" if rule == "never" else public_tag(start.tobytes()))
        attempt = Attempt(announced, start, self._material, self.account, self._store)
        contribution = Contribution(
            attempt.contribute,
            1.0 if plan.surveys(announced.round) else plan.weights[plan.clients.index(self.name)],
            self.account.shown(),
            lambda: self._material.noise(plan, self.account.random(announced, "noise"), announced.round),
            lambda shown: self._see(announced.run, roster, shown),
            sums.admit,
            sums.opening,
        )
        agreed = terms(plan, roster, announced.run, announced.round, announced.attempt, tag, key_id)
        session = AggregationClient(self.name, self._identity, agreed, coder, contribution, self._random, self._work)
        self._attempt = attempt
        return attempt.begin(session, request)

    def _go_on(self, attempt: Attempt, request: bytes) -> bytes:
        try:
            return attempt.handle(request)
        finally:
            if attempt.over:  # and so is what it holds: a model, for each of many clients of one process
                self._attempt = None

    def _open_start(self, announced: Announcement) -> tuple[NDArray[np.float32], Encoding]:
        """The model that came with the announcement, and the encoding; the attempt is remembered."""
        start = announced.vector()
        self._attendance.join(announced)
        return start, protection.encoding(announced.plan, None, self._work)

    def _sealed_start(self, announced: Announcement) -> tuple[NDArray[np.float32], Encoding]:
        """This client's own model and the encoding under the run's key; the attempt is remembered."""
        holder = self._keyholder(announced.run)
        key, start = holder.key_for(announced), holder.model
        if start is None:
            raise Behind("this client has no model of this run yet")
        self._attendance.join(announced)
        return start, holder.take_up(key)

    def _see(self, run: str, roster: Roster, shown: Mapping[str, bytes]) -> None:
        for wrong in self.account.see(run, roster, shown):
            self._log(wrong)

    def _join(self, announced: Announcement) -> bytes:
        self._consent(announced.plan)
        return self._keyholder(announced.run, joining=True).join(announced)

    def _consent(self, plan: Plan) -> tuple[Roster, Plan]:
        """Roster and plan as the owner accepted them. Raises ``Refused`` if the server announces anything else."""
        roster, accepted = self._pinned()
        check_announced(plan, accepted)
        self.policy.check(accepted, self.name, self.budget)
        return roster, accepted

    def _state(self, run: str) -> bytes:
        return encode(Stated(canonical(self._statement(run))))

    def _endorse(self, request: EndorseRequest) -> bytes:
        report = read(request.report, Report, "the report")
        return encode(Endorsed(canonical(endorse(report, self._statement(request.run), self._identity))))

    def _statement(self, run: str) -> SignedStatement:
        """What this client says of its own side of a run, which ends for it here: what came later would be left out."""
        roster, plan = self._pinned()
        self._attendance.close(run, plan)
        held = self.held(run)
        file = held.file
        model = "unknown" if file is None else hashlib.sha256(file).hexdigest()
        counted = held.surveyed if held.round == plan.last else ()
        return sign(statement(self.account, run, plan, roster, model, counted), self._identity)

    def _pinned(self) -> tuple[Roster, Plan]:
        if self._accepted is None:
            raise Refused("this owner has accepted no roster and plan yet: pin them before taking part")
        return self._accepted

    def _keyholder(self, run: str, joining: bool = False) -> KeyHolder:
        """The keeper of a run's CKKS key and model, read back from the store after a restart."""
        roster, plan = self._pinned()
        if run in self._keyholders:
            return self._keyholders[run]
        found = KeyHolder(
            self.name,
            self._identity,
            roster,
            plan,
            run,
            self._material.model,
            self._test,
            self._store,
            self._random,
            self._work,
        )
        if joining or found.round is not None:  # else anybody could have this client remember runs without end
            self._keyholders[run] = found
        return found


def _reason(error: Exception) -> str:
    """The one word that a server may hear."""
    match error:
        case BudgetExceeded():
            return "budget"
        case Refused() | ConfigurationError():
            return "policy"
        case Behind():
            return "behind"
        case SessionSpent():
            return "spent"
        case ProtocolError():
            return "protocol"
        case _:
            return "failed"
