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

from protocols.aggregation.messages import Refusal
from protocols.aggregation.session import Roster
from protocols.errors import ConfigurationError, MalformedMessage, ProtocolError
from protocols.primitives import Identity
from protocols.wire import decode, encode, kind
from securefl.account import load_identity
from securefl.client import Client
from securefl.closing import StateRequest
from securefl.data import Dataset
from securefl.deployment import ledger_head
from securefl.deployment.approvals import COORDINATOR
from securefl.deployment.decisions import Decisions
from securefl.deployment.diary import Diary
from securefl.deployment.site_folder import SiteFolder
from securefl.errors import BadInput, BudgetExceeded, NotARun, Refused, SecureFLError
from securefl.named_run import Begun, begun, named_run
from securefl.plan import Plan
from securefl.proposal import Consent, Propose, Word, plan_of
from securefl.store import Store

if TYPE_CHECKING:
    from torch import nn

_PINNED: Final = "pinned plan"
_IN_TURN: Final = "runs without a server, and who proposed them"
_PROPOSED: Final = 1000  # runs that the coordinator proposed and that are remembered as its own before they begin


class _Pinned(Struct, frozen=True):
    run: str
    plan: bytes


class Site:
    """Answers what the server asks. Raises ``BadInput`` or ``LedgerError`` at once for a folder that cannot serve."""

    def __init__(self, folder: SiteFolder, diary: Diary) -> None:
        self._folder, self._diary = folder, diary
        self._file = folder.site_file()
        self._roster = folder.roster().pinned()
        self._data, self._held_out, self._test = self._file.load(), self._file.held_out(), self._file.test()
        self._keep, self._store = Store(folder.keep), Store(folder.store)
        self._ledger = ledger_head.opened(folder, self._file, self._keep, self._data)
        self._decisions = Decisions(folder, self._file, self._keep, self._ledger)
        self._coordinators: dict[str, None] = {}
        # Runs without a server, with who proposed each: read by whoever asks while another request is answered.
        self._in_turn = msgspec.msgpack.decode(self._store.get(_IN_TURN) or b"\x80", type=dict[str, str])
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
        return self._handled(request, self._answer_in_turn)

    def consent(self, run: str, plan: Plan, by: str) -> Word:
        """Whether the owner takes part in this run without a server, which a member proposes. No server is answered in
        it from then on; nothing else changes before it begins.
        """
        with self._lock:
            in_turn = self._in_turn
            if run not in in_turn and (run in self._coordinators or self._store.joined(run)):
                return "refused"  # with a server
            word = self._word(run, plan, in_turn.get(run, by))
            if word == "accepted" and run not in in_turn:
                self._keep_in_turn({**in_turn, run: by})
            return word

    def proposer(self, run: str) -> str | None:
        """Who proposed a run without a server that the owner takes part in; None of any other."""
        return self._in_turn.get(run)

    def joined(self, run: str) -> bool:
        """Whether any attempt of this run was joined."""
        with self._lock:
            return self._store.joined(run)

    def forget(self, run: str) -> None:
        """That the owner would have taken part in a run without a server, which has not begun."""
        with self._lock:
            self._keep_in_turn({other: by for other, by in self._in_turn.items() if other != run})

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
                if self._ledger is not None:  # before anything leaves that it was charged for
                    ledger_head.remember(self._keep, self._ledger)
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
        run = self._run_of(request)
        if run in self._in_turn:
            raise Refused(
                f"run {run} has no server: its clients act in turn, and speak to each other in sealed letters"
            )
        if kind(request) == Propose.KIND:
            proposal = decode(request, Propose)
            word = self._word(run, plan_of(proposal), COORDINATOR)
            if word == "accepted":
                self._coordinators = dict.fromkeys([*self._coordinators, run][-_PROPOSED:])
            return encode(Consent(word))
        return self._answer(request, COORDINATOR)

    def _answer_in_turn(self, request: bytes) -> bytes:
        """Raises ``Refused`` in any other run: that a member has the turn in one says nothing of those."""
        run = self._run_of(request)
        if (by := self.proposer(run)) is None:
            raise Refused(f"run {run} is none without a server that this owner takes part in")
        return self._answer(request, by)

    def _run_of(self, request: bytes) -> str:
        """The run that a request names or, where it goes by its session, that is going on."""
        named = named_run(request)
        return named if named is not None else "" if self._pinned is None else self._pinned.run

    def _keep_in_turn(self, runs: dict[str, str]) -> None:
        self._store.put({_IN_TURN: msgspec.msgpack.encode(runs)})
        self._in_turn = runs

    def _answer(self, request: bytes, by: str) -> bytes:
        """``by``: who proposed the run that it is about."""
        announced = begun(request)
        client = self._client_now() if announced is None else self._under(announced, by)
        reply = client.handle(request)
        if kind(request) == StateRequest.KIND:
            over = decode(request, StateRequest).run
            client.held(over).write(self._folder.runs / over)
        return reply

    def _word(self, run: str, plan: Plan, by: str) -> Word:
        """Changes nothing, but that the plan may wait for approval: a run that goes on is not given up for words."""
        try:
            self._considered(run, plan)
            self._decisions.require(plan, run, by)
        except BudgetExceeded as error:
            self._diary.tell(str(error))
            return "budget"
        except (SecureFLError, ConfigurationError) as error:
            self._diary.tell(str(error))
            return "pending" if self._decisions.waits(plan, by) else "refused"
        return "accepted"

    def _under(self, announced: Begun, by: str) -> Client:
        """The client under the plan of a run that begins or goes on. Raises ``Refused`` unless the owner takes part."""
        run, plan, current = announced.run, announced.plan, _Pinned(announced.run, announced.plan.encoded())
        if self._client is not None and self._pinned == current:
            self._decisions.take(plan, run, by)
            return self._client
        client = self._considered(run, plan)
        self._decisions.take(plan, run, by)
        client.pin(self._members(plan), plan)
        self._client, self._pinned = client, current
        self._store.put({_PINNED: msgspec.msgpack.encode(current)})
        return client

    def _considered(self, run: str, plan: Plan) -> Client:
        """A client that could take part. Raises ``Refused`` or ``BudgetExceeded`` where there is none, before anybody
        is asked to look at the plan. Of a run that was joined, what is left of it has to fit into the budget.
        """
        client = self._of_plan(plan)
        entries = () if self._ledger is None else self._ledger.entries()
        done = {entry.round for entry in entries if entry.run == run}
        client.consider(self._members(plan), plan, max(0, plan.participations - len(done)))
        return client

    def _members(self, plan: Plan) -> dict[str, bytes]:
        """The plan's clients that are on the roster, with their keys there."""
        return {name: self._roster.public_key(name) for name in plan.clients if name in self._roster.keys}

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
            client.pin(self._members(plan), plan)
        except Exception as error:  # policy, budget or roster are others now; or the owner's own code fails
            self._diary.tell(f"the plan from before is not gone on with: {type(error).__name__}: {error}")
            return
        self._client, self._pinned = client, pinned

    def _client_now(self) -> Client:
        if self._client is None:
            raise Refused("this owner takes part in no run now")
        return self._client

    def _flush(self) -> None:
        if self._client is not None:
            for why in self._client.errors:
                self._diary.tell(why)
            self._client.errors.clear()


def _kind(request: bytes) -> int:
    try:
        return kind(request)
    except MalformedMessage:
        return -1
