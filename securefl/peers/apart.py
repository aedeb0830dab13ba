"""One peer of a run whose others are processes elsewhere: it answers them, and acts when its clock says that it may."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from protocols.aggregation.messages import Refusal
from protocols.base import Exchange, Messages, Replies
from protocols.errors import MalformedMessage
from protocols.wire import Message, kind
from securefl.closing import EndorseRequest
from securefl.engines.correspondence import Carry, Correspondence, Deadlines
from securefl.errors import RoundFailed
from securefl.parties import Unseen
from securefl.peers.acting import Acting
from securefl.peers.clock import Clock, soon
from securefl.peers.gathering import NotGiven, Overtaken
from securefl.peers.messages import TurnRequest
from securefl.peers.peer import Peer
from securefl.peers.turns import attempts_before
from securefl.plan import Plan
from securefl.progress import Tell, nobody
from securefl.server import Server


class Others(Unseen):
    """The other peers, by letters, and this one beside them. As parties: of the others nothing can be seen."""

    def __init__(self, roster: Mapping[str, bytes], own: str, carry: Carry, deadlines: Deadlines) -> None:
        self.roster = roster
        self._own = own
        self._letters = Correspondence(carry, deadlines)
        self._short = Correspondence(carry, Deadlines(soon(deadlines), soon(deadlines)))
        self.handle: Callable[[str, bytes], bytes] | None = None
        self.server: Server | None = None

    def reach(self, requests: Messages) -> Replies:
        """An exchange."""
        return self._exchanged(self._letters, requests)

    def soon(self, requests: Messages) -> Replies:
        """The same, for what is answered at once by those who are there."""
        return self._exchanged(self._short, requests)

    def _exchanged(self, letters: Correspondence, requests: Messages) -> Replies:
        asked = dict(requests)
        mine = asked.pop(self._own, None)
        with ThreadPoolExecutor(1, "own") as beside:  # it trains while the others do
            own = None if mine is None or self.handle is None else beside.submit(self.handle, self._own, mine)
            if asked:
                yield from letters.exchange(asked)
            if own is not None:
                yield self._own, own.result()

    def exchange(self, round: int) -> Exchange:
        return self.reach

    def enrol(self, server: Server) -> None:
        """Owners have consented, each for itself."""

    def present(self, plan: Plan) -> frozenset[str]:
        return frozenset(plan.clients)

    def close(self) -> None:
        pass


class Apart:
    """``tell`` hears what this peer does as the server, and why it could not."""

    def __init__(self, peer: Peer, others: Others, clock: Clock, tell: Tell = nobody) -> None:
        self.peer = peer
        self._clock = clock
        self._tell = tell
        self._acting = Acting(peer, others.reach, others, soon=others.soon)
        self._had: set[tuple[int, int]] = set()  # turns that are over for this peer
        self._counting = Lock()
        self._seen = (peer.round, peer.memory.next.turn)
        self.ended = False
        self.others = others
        others.handle, others.server = self.handle, peer.server

    def handle(self, sender: str, request: bytes) -> bytes:
        """Answer another peer. Its time runs from here: what it asks for may take long, to train."""
        with self._counting:
            acts = self._acts(sender)
            if acts and not _asks(request, TurnRequest):
                self._clock.heard(request)
        reply = self.peer.handle(sender, request)
        with self._counting:
            self._note_turn()
            if acts and _asks(request, EndorseRequest) and kind(reply) != Refusal.KIND:
                self.ended = True
        return reply

    def _acts(self, sender: str) -> bool:
        """Whether it is this peer's turn: the one that it was given or, after the last round, by the clock."""
        circle, open = self.peer.circle, self.peer.memory.next
        if self.peer.over:
            return sender == circle.acting(circle.plan.rounds, self._turn[1])
        return open.turn >= 0 and sender == circle.acting(open.round, open.turn)

    @property
    def mine(self) -> bool:
        """Whether it is time for this peer to act or, after the last round, to end the run."""
        circle, (number, turn) = self.peer.circle, self._turn
        acting = circle.acting(min(number, circle.plan.rounds), turn)
        return (number, turn) not in self._had and acting == self.peer.name

    def act(self) -> None:
        """Take the turn."""
        number, turn = self._turn
        self._tell(f"acts as the server in round {number}, turn {turn}")
        try:
            # Owners consent one after the other: the first round waits a little, so that all may be in it.
            everybody = number == 1 and self._clock.early
            record = self._acting.take_turn(turn, len(self.peer.circle.plan.clients) if everybody else 0)
            self._tell(f"round {number} is settled, with {len(record.contributors)} contributors")
        except Overtaken:
            self._tell(f"round {number} was settled by others; going on from round {self.peer.round}")
        except NotGiven as error:
            self._tell(str(error))
            with self._counting:
                if self.peer.memory.next.round == number:
                    self._clock.reached(error.reached, max(self.peer.memory.next.turn, 0))
        except RoundFailed as error:
            self._tell(str(error))
            if self.peer.server.state.attempt > attempts_before(turn):  # else nobody was asked for anything yet
                self._had.add((number, turn))
        finally:
            with self._counting:
                self._note_turn()

    def end(self) -> None:
        """After the last round: bring all up to date. A turn of the same kind: if it fails, the next one tries."""
        self._had.add(self._turn)
        self._acting.finish()

    @property
    def _turn(self) -> tuple[int, int]:
        open = self.peer.memory.next
        return open.round, self._clock.turn(max(open.turn, 0))

    def _note_turn(self) -> None:
        now = (self.peer.round, self.peer.memory.next.turn)
        if now != self._seen:
            self._seen = now
            self._clock.turned()


def _asks(request: bytes, for_: type[Message]) -> bool:
    try:
        return kind(request) == for_.KIND
    except MalformedMessage:
        return False
