"""A data owner's side: holds data, keys and ledger, and answers requests by one verb.

Training happens inside exchange 2, after the ledger was charged. What the owner did not allow is refused, whatever the
server says. Nothing leaves but signed protocol messages and refusals, which carry one fixed word.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import ApplyRequest, DecryptRequest, KeysRequest, Refusal
from protocols.aggregation.session import Roster
from protocols.aggregation.states import Contribution
from protocols.base import Random
from protocols.delivery.messages import (
    InstallModelRequest,
    JoinRequest,
    MakeKeyRequest,
    ReceiveKeyRequest,
    SealModelRequest,
    ShareKeyRequest,
)
from protocols.encoding import Encoding
from protocols.errors import Behind, ConfigurationError, ProtocolError, SessionSpent
from protocols.masking import Work
from protocols.primitives import Identity
from protocols.wire import decode, encode, kind
from securefl import protection
from securefl.announcement import Announcement, public_tag, terms
from securefl.data import Dataset
from securefl.errors import BadInput, BudgetExceeded, Refused, SecureFLError
from securefl.export import write_model
from securefl.keyholder import KeyHolder
from securefl.keystream import fastest
from securefl.plan import Plan
from securefl.policy import Policy, check_announced, check_model, check_roster
from securefl.privacy.ledger import Ledger
from securefl.privacy.mechanism import DPSGD, Budget
from securefl.store import Store

if TYPE_CHECKING:
    from torch import nn


_NEWEST_ERRORS = 1000


class Client:
    """One data owner. ``model`` is code that the owner installed; ``budget`` None admits only jobs without privacy.

    ``policy`` is what the owner takes part in; it may be replaced in a run and then holds from the next attempt on.
    ``ledger`` and ``store`` outlive the process where they are files. ``test`` is the public test set, needed
    where only clients can read the model. ``errors`` is the owner's own log of why requests were refused. ``work`` is
    how masks and ciphertexts are made: a pool's ``map`` in it shares them out among processes.

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
        test: Dataset | None = None,
        ledger: Ledger | None = None,
        store: Store | None = None,
        random: Random = os.urandom,
        work: Work | None = None,
    ) -> None:
        self.name = name
        self.budget = budget
        self.policy = policy or Policy()
        self.ledger = ledger or Ledger(":memory:", name, budget)
        if (self.ledger.client, self.ledger.budget) != (name, budget):
            raise BadInput(f"{name}: the ledger was opened for another client or budget: open it with the same")
        self.errors: list[str] = []
        self._data = data
        self._model = model
        self._test = test
        self._store = store or Store()
        self._random = random
        self._work = work or Work(fastest())
        self._identity = _identity(self._store, random)
        self._accepted: tuple[Roster, Plan] | None = None
        self._session: AggregationClient | None = None
        self._keyholders: dict[str, KeyHolder] = {}
        self._one_at_a_time = Lock()  # between what is read from the store and what is written to it

    @property
    def public_key(self) -> bytes:
        """The Ed25519 public key that others pin."""
        return self._identity.public

    def pin(self, roster: Mapping[str, bytes], plan: Plan) -> None:
        """The owner's consent: these clients, by name and public key, and this plan. No other is taken part in.

        Raises ``Refused`` for a plan that contradicts the policy, the budget or the model that the owner installed.
        """
        check_roster(plan, roster, self.name, self.public_key)
        self.policy.check(plan, self.name, self.budget)
        check_model(plan, self._model, self._data)
        self._accepted = (Roster(dict(roster)), plan)
        self._keyholders.clear()  # they trust the roster from before

    def epsilon(self) -> float | None:
        """What the ledger has charged so far, at the budget's delta; None without a budget."""
        return None if self.budget is None else self.ledger.epsilon()

    def model(self, run: str) -> NDArray[np.float32] | None:
        """The run's current model, where this client holds it (CKKS)."""
        return self._keyholder(run).model

    def model_round(self, run: str) -> int | None:
        """The round whose model this client holds, where it holds one (CKKS); 0 before the first."""
        return self._keyholder(run).round

    def write_model(self, run: str, path: Path) -> NDArray[np.float32]:
        """Write the run's current model, which this client holds (CKKS), and return its flat parameters."""
        model = self.model(run)
        if model is None:
            raise BadInput(f"{self.name} holds no model of run {run}: it has not joined it")
        write_model(self._model, self._pinned()[1].model_seed, model, path)
        return model

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
            case MakeKeyRequest.KIND:
                return self._keyholder((making := decode(request, MakeKeyRequest)).run).make_key(making)
            case ReceiveKeyRequest.KIND:
                return self._keyholder((receiving := decode(request, ReceiveKeyRequest)).run).receive_key(receiving)
            case ApplyRequest.KIND:
                return self._keyholder((applying := decode(request, ApplyRequest)).run).agree(applying)
            case DecryptRequest.KIND:
                return self._keyholder((opening := decode(request, DecryptRequest)).run).decrypt(opening)
            case ShareKeyRequest.KIND:
                return self._keyholder((sharing := decode(request, ShareKeyRequest)).run).share_key(sharing)
            case SealModelRequest.KIND:
                return self._keyholder((sealing := decode(request, SealModelRequest)).run).seal_model(sealing)
            case InstallModelRequest.KIND:
                return self._keyholder((coming := decode(request, InstallModelRequest)).run).install_model(coming)
            case _ if self._session is not None:
                return self._session.handle(request)
            case _:
                raise SessionSpent("this client is in no session: it restarted, or the attempt is over")

    def _begin(self, announced: Announcement, request: bytes) -> bytes:
        self._session = None
        roster, plan = self._consent(announced.plan)
        self._check_budget(plan)
        sealed = protection.protection_of(plan).sealed
        start, coder = (self._sealed_start if sealed else self._open_start)(announced)
        key_id, tag = (announced.key_id, announced.tag) if sealed else (b"", public_tag(announced.model))
        contribution = Contribution(
            lambda: self._train(announced, start),
            plan.weights[plan.clients.index(self.name)],
            self.ledger.head(),
        )
        agreed = terms(plan, roster, announced.run, announced.round, announced.attempt, tag, key_id)
        self._session = AggregationClient(
            self.name, self._identity, agreed, coder, contribution, self._random, self._work
        )
        return self._session.handle(request)

    def _open_start(self, announced: Announcement) -> tuple[NDArray[np.float32], Encoding]:
        """The model that came with the announcement, and the encoding; the attempt is remembered."""
        start = announced.vector()
        self._store.join_attempt(announced.run, announced.round, announced.attempt)
        return start, protection.encoding(announced.plan, None, self._work)

    def _sealed_start(self, announced: Announcement) -> tuple[NDArray[np.float32], Encoding]:
        """This client's own model and the encoding under the run's key; the attempt is remembered."""
        holder = self._keyholder(announced.run)
        key, start = holder.key_for(announced), holder.model
        if start is None:
            raise Behind("this client has no model of this run yet")
        self._store.join_attempt(announced.run, announced.round, announced.attempt)
        return start, holder.take_up(key)

    def _train(self, announced: Announcement, start: NDArray[np.float32]) -> NDArray[np.float32]:
        from securefl import training, vector

        plan = announced.plan
        module = vector.build(self._model, plan.model_seed)
        vector.load(module, start)
        if isinstance(plan.mechanism, DPSGD):
            self.ledger.charge(announced.run, announced.round, announced.attempt, plan.mechanism)
        return training.train(module, self._data, plan.mechanism, plan.optimizer, self._random)

    def _join(self, announced: Announcement) -> bytes:
        self._consent(announced.plan)
        return self._keyholder(announced.run, joining=True).join(announced)

    def _consent(self, plan: Plan) -> tuple[Roster, Plan]:
        """Roster and plan as the owner accepted them. Raises ``Refused`` if the server announces anything else."""
        roster, accepted = self._pinned()
        check_announced(plan, accepted)
        self.policy.check(accepted, self.name, self.budget)
        return roster, accepted

    def _check_budget(self, plan: Plan) -> None:
        # Asked before keys go out, so that a client without budget is no dropout later. The charge is what binds.
        if self.budget is None or not isinstance(plan.mechanism, DPSGD):
            return
        self.ledger.check(plan.mechanism)

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
            self._model,
            self._test,
            self._store,
            self._random,
            self._work,
        )
        if joining or found.round is not None:  # else anybody could have this client remember runs without end
            self._keyholders[run] = found
        return found


def _identity(store: Store, random: Random) -> Identity:
    secret = store.get("identity")
    if secret is None:
        secret = Identity.generate(random).secret
        store.put({"identity": secret})
    return Identity(secret)


def _reason(error: Exception) -> str:
    """The one word that a server may hear."""
    match error:
        case BudgetExceeded():
            return "budget"
        case Refused() | ConfigurationError():
            return "policy"
        case Behind():
            return "behind"
        case ProtocolError():
            return "protocol"
        case _:
            return "failed"
