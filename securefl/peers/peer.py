"""One client that can also be the server: what it answers to the others, whoever's turn it is.

Requests of the protocol go to its client, if they come from whoever it gave the turn; the others are about turns and
batons. What settles a round is a quorum twice: votes for one baton, and locks by those who saw that quorum. An honest
peer votes once a turn, so that no two batons get a quorum at one turn; and whoever acts later gets the turn from a
quorum, in which is one who locked if any baton was settled, and can pass on no other (Castro and Liskov, OSDI 1999).

**Guarantee**: with at most n_C = ``colluders`` peers that deviate, no two batons of one round are ever settled.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import TypeVar

from protocols.aggregation.messages import Refusal
from protocols.errors import Behind, ConfigurationError, Inconsistent, ProtocolError
from protocols.primitives import Identity
from protocols.wire import decode, encode, kind
from securefl import protection
from securefl.errors import Refused, SecureFLError
from securefl.peers import baton as batons
from securefl.peers import handed
from securefl.peers.baton import Baton, name_of
from securefl.peers.circle import Circle
from securefl.peers.gate import Answering, Gate
from securefl.peers.grants import check_due, due, entitled, grant
from securefl.peers.journal import Journal
from securefl.peers.memory import Candidate, Locked, Memory, Open
from securefl.peers.messages import (
    Fetched,
    FetchRequest,
    LockRequest,
    Passed,
    Said,
    Settled,
    Sum,
    SumRequest,
    Taken,
    TakeRequest,
    TurnReply,
    TurnRequest,
    VoteRequest,
)
from securefl.progress import Tell, nobody
from securefl.server import Server

Overdue = Callable[[int, int, int], bool]
"""Whether, of a round, all turns from the second number on and before the third have had their time."""

Asked = TypeVar("Asked", TurnRequest, VoteRequest, LockRequest, TakeRequest, FetchRequest, SumRequest)


class Peer:
    """Of one run. ``server``: its own, with a store of its own; ``overdue``: when others may have their turn, as this
    peer sees it. ``tell`` hears what was refused, and by whom it was asked: it is the owner's own log.
    """

    def __init__(
        self,
        client: Answering,
        identity: Identity,
        server: Server,
        circle: Circle,
        memory: Memory,
        overdue: Overdue,
        journal: Journal | None = None,
        tell: Tell = nobody,
    ) -> None:
        self.name = client.name
        self.circle = circle
        self.server = server
        self.memory = memory
        self._identity = identity
        self._overdue = overdue
        self._journal = journal or Journal(None)
        self._tell = tell
        self._one_at_a_time = RLock()  # between what is read from the memory and what is written to it
        self._gate = Gate(client, server, circle, memory, self._one_at_a_time)
        if server.state.round < self.round:  # it stopped between the two
            server.adopt(memory.standing.state)

    @property
    def round(self) -> int:
        """The last that is settled for this peer."""
        return self.memory.standing.round

    @property
    def over(self) -> bool:
        """Whether all rounds of the plan are settled."""
        return self.round >= self.circle.plan.rounds

    @property
    def whole(self) -> bool:
        """Whether it has the model of that round, where servers have one."""
        return self._sealed or bool(self.memory.standing.state.model)

    def handle(self, sender: str, request: bytes) -> bytes:
        """Answer one request of a member of the circle, whatever is in it."""
        try:
            return self._answer(sender, request)
        except (ProtocolError, SecureFLError, ConfigurationError) as error:
            self._tell(f"{sender} was refused: {error}")
            return encode(Refusal("protocol" if isinstance(error, ProtocolError) else "policy"))

    def sign(self, baton: Baton, model: bytes) -> Passed:
        """A baton that this peer made, as it is passed on."""
        encoded = baton.encoded()
        about = name_of(encoded)
        signature = self.circle.sign(self._identity, "baton", baton.state.round, baton.turn, about)
        return Passed(encoded, signature, model)

    def take(self, settled: Settled) -> None:
        """Go on from a settled baton of the next round, or fill in the model of the last one.

        Raises ``ProtocolError`` unless a quorum locked it. What they locked they checked; no more is asked here.
        """
        with self._one_at_a_time:
            passed = settled.passed
            found = batons.decoded(passed.baton)
            number = found.state.round
            locks = settled.locks
            if name_of(passed.baton) != locks.digest:
                raise Inconsistent("the locks are of another baton")
            if number == self.round and locks.digest == self.memory.standing.digest:
                self._complete(passed)
                return
            if number != self.round + 1:
                raise Behind(f"the baton is of round {number}, and round {self.round} is the last settled here")
            self.circle.check_quorum(locks.words, "lock", number, locks.turn, locks.digest)
            self._go_on(settled, found)

    def _complete(self, passed: Passed) -> None:
        """A baton may have come without its model."""
        if passed.model and not self.memory.standing.state.model:
            batons.check_beside(self.circle, self.memory.standing.state, passed.model)
            self.memory.complete(passed.model)
            self.server.adopt(self.memory.standing.state)

    def _go_on(self, settled: Settled, found: Baton) -> None:
        passed = settled.passed
        if not self._sealed:
            model = passed.model or self.memory.model_of(passed.baton)
            if model:
                batons.check_beside(self.circle, found.state, model)
            passed = Passed(passed.baton, passed.signature, model)
        if (
            found.maker != self.name
        ):  # whose server saw the heads as they came, and what each contributor must have more
            self.server.witness(batons.heads(self.circle, found), found.record.contributors)
        after = batons.standing_after(passed, found)
        self.memory.settle(Settled(passed, settled.locks), after)
        self.server.adopt(after.state)
        self._journal.add(found)

    # ---- what others ask

    def _answer(self, sender: str, request: bytes) -> bytes:
        match kind(request):
            case TurnRequest.KIND:
                return self._give_turn(sender, self._of_run(decode(request, TurnRequest)))
            case VoteRequest.KIND:
                return self._vote(sender, self._of_run(decode(request, VoteRequest)))
            case LockRequest.KIND:
                return self._lock(sender, self._of_run(decode(request, LockRequest)))
            case TakeRequest.KIND:
                self.take(self._of_run(decode(request, TakeRequest)).settled)
                return encode(Taken(self.round))
            case FetchRequest.KIND:
                return self._fetched(self._of_run(decode(request, FetchRequest)))
            case SumRequest.KIND:
                asked = self._of_run(decode(request, SumRequest)).round
                return encode(Sum(self._gate.handed if asked == self.memory.next.round else None))
            case _:
                return self._gate.pass_on(sender, request)

    def _of_run(self, asked: Asked) -> Asked:
        if asked.run != self.circle.run:
            raise Refused(f"a message of run {asked.run[:80]!r}, and this one is {self.circle.run!r}")
        return asked

    def _give_turn(self, sender: str, asked: TurnRequest) -> bytes:
        with self._one_at_a_time:
            before, open = self.memory.standing, self.memory.next
            if self.over or asked.round != open.round:
                return encode(TurnReply(before.round))
            acting = self.circle.acting(open.round, asked.turn)
            if sender != acting:
                raise Refused(f"turn {asked.turn} of round {open.round} is {acting}'s")
            why = self._too_late(asked.turn, open) or ("" if asked.due else self._too_early(asked.turn, open))
            if why:
                self._tell(f"{sender} was refused: {why}")
                return encode(TurnReply(before.round, turn=open.turn))
            if not asked.due:
                word = due(self.circle, self.name, self._identity, before, asked.turn)
                return encode(TurnReply(before.round, turn=open.turn, due=word))
            # A quorum says that it is time, and this peer's own clock is not asked: so those that began at different
            # times come together.
            check_due(self.circle, before, asked.turn, asked.due)
            self.memory.note(turn=asked.turn)
            votes = None if open.locked is None else open.locked.votes
            given = grant(self.circle, self.name, self._identity, before, asked.turn, votes)
            return encode(TurnReply(before.round, given, votes, handed.name_of(self._gate.handed), asked.turn))

    def _too_late(self, turn: int, open: Open) -> str:
        over = f"turn {turn} of round {open.round} is over: it is turn {open.turn}"
        return over if turn < open.turn else ""

    def _too_early(self, turn: int, open: Open) -> str:
        first = max(open.turn, 0)
        if turn <= first or self._overdue(open.round, first, turn):
            return ""
        return f"it is not time for turn {turn} of round {open.round} yet: turn {first} has not had its own"

    def _vote(self, sender: str, asked: VoteRequest) -> bytes:
        with self._one_at_a_time:
            open = self._open(sender, asked.round, asked.turn)
            about = name_of(asked.passed.baton)
            known = open.candidate
            if known is not None and known.turn == asked.turn and name_of(known.passed.baton) != about:
                raise Refused(f"{sender} passes a second baton at one turn: there is one")
            lock = entitled(self.circle, self.memory.standing, asked.turn, asked.grants, asked.votes)
            found = batons.checked(self.circle, self.memory.standing, asked.passed)
            if lock is not None and lock.digest != about:
                raise Refused(f"{sender} passes another baton than the one that a quorum voted for before")
            if lock is None and found.turn != asked.turn:
                raise Refused(
                    f"{sender} passes a baton of turn {found.turn}, which nobody locked, at turn {asked.turn}"
                )
            self.memory.note(candidate=Candidate(asked.turn, asked.passed))
            return encode(Said(self.circle.sign(self._identity, "vote", asked.round, asked.turn, about)))

    def _lock(self, sender: str, asked: LockRequest) -> bytes:
        with self._one_at_a_time:
            votes = asked.votes
            candidate = self._open(sender, asked.round, votes.turn).candidate
            if candidate is None or (candidate.turn, name_of(candidate.passed.baton)) != (votes.turn, votes.digest):
                raise Behind("this peer was shown no such baton at this turn")
            self.circle.check_quorum(votes.words, "vote", asked.round, votes.turn, votes.digest)
            self.memory.note(locked=Locked(votes, candidate.passed))
            return encode(Said(self.circle.sign(self._identity, "lock", asked.round, votes.turn, votes.digest)))

    def _open(self, sender: str, round: int, turn: int) -> Open:
        """The next round, if the sender has the turn in it."""
        open = self.memory.next
        if (round, turn) != (open.round, open.turn) or sender != self.circle.acting(round, turn):
            raise Refused(
                f"{sender} acts in round {round}, turn {turn}, and this peer gave {open.turn} of round {open.round}"
            )
        return open

    def _fetched(self, asked: FetchRequest) -> bytes:
        shown = self.memory.shown(asked.wanted) if asked.round == self.memory.next.round else None
        return encode(Fetched(self.memory.settled(asked.round), shown))

    @property
    def _sealed(self) -> bool:
        return protection.protection_of(self.circle.plan).sealed
