"""A site's own side of all runs: one owner's client, under whichever plan the owner takes part in.

A plan needs the owner's consent, run by run: by a rule in ``site.toml``, by its hash there, or by hand. It trains the
model, among those that the owner installed, that has its architecture. The server names no code, no data and no file.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from protocols.aggregation.messages import KeysRequest, Refusal
from protocols.aggregation.session import Roster
from protocols.delivery.messages import JoinRequest
from protocols.errors import ConfigurationError, MalformedMessage, ProtocolError
from protocols.primitives import Identity
from protocols.wire import decode, encode, kind
from securefl.account import load_identity
from securefl.client import Client
from securefl.closing import StateRequest
from securefl.data import Dataset
from securefl.deployment.approvals import Approvals
from securefl.deployment.diary import Diary
from securefl.deployment.site_folder import SiteFolder
from securefl.errors import BadInput, BudgetExceeded, NotARun, Refused, SecureFLError
from securefl.plan import Plan
from securefl.privacy.fingerprint import fingerprint, fingerprint_key, refuse_twin
from securefl.privacy.ledger import Ledger, Owner
from securefl.proposal import Consent, Propose, Word, plan_of
from securefl.run_folder import MODEL, private_folder, write
from securefl.store import Store

if TYPE_CHECKING:
    from torch import nn

_PINNED: Final = "pinned plan"
_IN_TURN: Final = "runs without a server"


class _Named(Struct, frozen=True, array_like=True):
    """The beginning of an announcement; what follows is the client's to read."""

    run: str
    round: int
    attempt: int
    plan: Plan


class _Pinned(Struct, frozen=True):
    run: str
    plan: bytes


class Site:
    """Answers what the server asks. Raises ``BadInput`` or ``LedgerError`` at once for a folder that cannot serve."""

    def __init__(self, folder: SiteFolder, diary: Diary) -> None:
        self._folder, self._diary = folder, diary
        self._file = folder.site_file()
        self._roster = folder.roster().pinned()
        self._approvals = Approvals(folder.plans)
        self._data, self._held_out, self._test = self._file.load(), self._file.held_out(), self._file.test()
        self._keep, self._store = Store(folder.keep), Store(folder.store)
        self._ledger = self._opened()
        self._client: Client | None = None
        self._pinned: _Pinned | None = None
        self._lock = Lock()
        self._go_on()

    @property
    def name(self) -> str:
        return self._file.name

    @property
    def identity(self) -> Identity:
        """What this site signs with."""
        return load_identity(self._keep)

    @property
    def roster(self) -> Roster:
        """Whom it takes part with."""
        return self._roster

    @property
    def test(self) -> Dataset | None:
        """The public test set."""
        return self._test

    def handle(self, request: bytes) -> bytes:
        """Answer one request of a server, whatever is in it. The reason of a refusal stays in the site's own diary."""
        return self._handled(request, self._answer_server)

    def handle_in_turn(self, request: bytes) -> bytes:
        """The same in a run without a server, for who may ask: that is for :mod:`securefl.peers` to say."""
        return self._handled(request, self._answer)

    def consent(self, run: str, plan: Plan) -> Word:
        """Whether the owner takes part in this run without a server: then no server is answered in it."""
        with self._lock:
            in_turn = self._in_turn
            if run not in in_turn and self._store.joined(run):
                return "refused"  # with a server
            word = self._word(run, plan)
            if word == "accepted" and run not in in_turn:
                self._store.put({_IN_TURN: msgspec.msgpack.encode(sorted(in_turn | {run}))})
            return word

    def model_of(self, plan: Plan) -> Callable[[], nn.Module]:
        """Among the models that the owner installed, the one of this architecture. Raises ``Refused`` for none."""
        from securefl import vector

        for factory in self._file.factories():
            if vector.architecture(vector.build(factory, plan.model_seed)) == plan.architecture:
                return factory
        raise Refused(
            f"no model that this owner installed has the architecture {plan.architecture[:80]!r}: if it is to be "
            f"trained here, name the function that builds it in [model] factories of {self._folder.file}"
        )

    def _handled(self, request: bytes, answer: Callable[[bytes], bytes]) -> bytes:
        with self._lock, self._diary.answering(_kind(request)) as answering:
            try:
                reply = answer(request)
            except (ProtocolError, SecureFLError, ConfigurationError) as error:
                self._diary.tell(str(error))
                reply = encode(Refusal("protocol" if isinstance(error, ProtocolError) else "policy"))
            except Exception:  # the owner's own code failed, as a model of it was tried
                self._diary.tell(traceback.format_exc())
                reply = encode(Refusal("failed"))
            answering.answered(reply)
            self._flush()
            return reply

    def _answer_server(self, request: bytes) -> bytes:
        """Raises ``Refused`` in a run that has none, whoever says that it is one."""
        match kind(request):
            case Propose.KIND:
                run = decode(request, Propose).run
            case KeysRequest.KIND:
                run = _named(decode(request, KeysRequest).announcement).run
            case JoinRequest.KIND:
                run = _named(decode(request, JoinRequest).announcement).run
            case _:
                run = "" if self._pinned is None else self._pinned.run
        if run in self._in_turn:
            raise Refused(
                f"run {run} has no server: its clients act in turn, and speak to each other in sealed letters"
            )
        return self._answer(request)

    @property
    def _in_turn(self) -> frozenset[str]:
        """Runs without a server."""
        return frozenset(msgspec.msgpack.decode(self._store.get(_IN_TURN) or b"\x90", type=list[str]))

    def _answer(self, request: bytes) -> bytes:
        match kind(request):
            case Propose.KIND:
                proposal = decode(request, Propose)
                return encode(Consent(self._word(proposal.run, plan_of(proposal))))
            case KeysRequest.KIND:
                client = self._under(_named(decode(request, KeysRequest).announcement))
            case JoinRequest.KIND:
                client = self._under(_named(decode(request, JoinRequest).announcement))
            case _:
                client = self._client_now()
        reply = client.handle(request)
        if kind(request) == StateRequest.KIND:
            self._write_model(client, decode(request, StateRequest).run)
        return reply

    def _word(self, run: str, plan: Plan) -> Word:
        try:
            self._under(_Named(run, 0, 0, plan))
        except BudgetExceeded as error:
            self._diary.tell(str(error))
            return "budget"
        except (SecureFLError, ConfigurationError) as error:
            self._diary.tell(str(error))
            waits = plan.digest().hex() in self._approvals.waiting()
            return "pending" if waits else "refused"
        return "accepted"

    def _under(self, named: _Named) -> Client:
        """The client under the plan of a run. Raises ``Refused`` unless the owner takes part in that."""
        encoded = named.plan.encoded()
        current = self._pinned
        if self._client is not None and current is not None and (current.run, current.plan) == (named.run, encoded):
            return self._client
        client = self._of_plan(named.plan)
        roster = {name: self._roster.public_key(name) for name in named.plan.clients if name in self._roster.keys}
        client.policy.check(named.plan, client.name, client.budget)  # before anybody is asked to look at it
        self._require_consent(named)
        client.pin(roster, named.plan, named.plan.rounds)
        self._client, self._pinned = client, _Pinned(named.run, encoded)
        self._store.put({_PINNED: msgspec.msgpack.encode(self._pinned)})
        return client

    def _require_consent(self, named: _Named) -> None:
        plan = named.plan
        if self._file.accepts(plan) or self._approvals.take(plan, named.run):
            return
        self._approvals.ask(plan)
        raise Refused(
            f"plan {plan.digest().hex()} of run {named.run!r} waits for approval: "
            f"securefl site approve {self._folder.path} {plan.digest().hex()}"
        )

    def _of_plan(self, plan: Plan) -> Client:
        """A client whose model has the plan's architecture."""
        return Client(
            self._file.name,
            self._data,
            self.model_of(plan),
            budget=self._file.budget,
            policy=self._file.policy,
            held_out=self._held_out,
            test=self._test,
            ledger=self._ledger,
            store=self._store,
            keep=self._keep,
            unit=self._file.unit,
            seed=self._file.seed,
            device=self._file.device,
        )

    def _opened(self) -> Ledger | None:
        """The ledger of the data. Raises ``LedgerError`` for one that is another's, or a second of these records."""
        if self._file.budget is None:
            return None
        path = self._folder.ledger(self._file.data_name, self._file.name)
        private_folder(path.parent)
        identity = load_identity(self._keep)
        owner = Owner(self._file.name, self._file.data_name, self._file.unit)
        ledger = Ledger(path, identity, owner, self._file.budget)
        refuse_twin(path, fingerprint(fingerprint_key(identity), self._data.features, self._data.labels))
        return ledger

    def _go_on(self) -> None:
        """After a restart: under the plan from before, so that a run that is being trained goes on."""
        stored = self._store.get(_PINNED)
        if stored is None:
            return
        try:
            pinned = msgspec.msgpack.decode(stored, type=_Pinned)
            plan = msgspec.json.decode(pinned.plan, type=Plan)
        except (msgspec.DecodeError, UnicodeDecodeError, BadInput) as error:
            raise NotARun(f"{self._folder.store} is damaged ({error}): restore it from a backup") from error
        try:
            client = self._of_plan(plan)
            client.pin({name: self._roster.public_key(name) for name in plan.clients}, plan)
        except Exception as error:  # policy, budget or roster are others now; or the owner's own code fails
            self._diary.tell(f"the plan from before is not gone on with: {type(error).__name__}: {error}")
            return
        self._client, self._pinned = client, pinned

    def _client_now(self) -> Client:
        if self._client is None:
            raise Refused("this owner takes part in no run now")
        return self._client

    def _write_model(self, client: Client, run: str) -> None:
        """The model of a run that is over, where this site can read it and the server cannot."""
        file = client.model_file(run)
        if file is not None:
            folder = self._folder.runs / run
            private_folder(folder)
            write(folder / MODEL, file)

    def _flush(self) -> None:
        if self._client is not None:
            for why in self._client.errors:
                self._diary.tell(why)
            self._client.errors.clear()


def _named(announcement: bytes) -> _Named:
    try:
        return msgspec.msgpack.decode(announcement, type=_Named, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, BadInput) as error:
        raise MalformedMessage(f"not an announcement: {error}") from error


def _kind(request: bytes) -> int:
    try:
        return kind(request)
    except MalformedMessage:
        return -1
