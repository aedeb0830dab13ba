"""The server's side of a delivery: it relays what it cannot open, and asks the next client if a giver falls silent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from protocols.aggregation.collect import collect
from protocols.aggregation.messages import SHORT_REPLY, Envelope, Extract
from protocols.aggregation.session import Roster
from protocols.base import ClientId, Messages, Replies
from protocols.delivery.client import extracts_by_receiver
from protocols.delivery.messages import Purpose
from protocols.errors import MalformedMessage, RoundAborted
from protocols.wire import LARGEST, Message, encode


@dataclass(frozen=True)
class Requests:
    """How the three requests of one kind of delivery are made."""

    join: Message
    give: Callable[[tuple[Envelope, ...]], Message]
    receive: Callable[[Extract], Message]


@dataclass(frozen=True)
class Delivered:
    """Who holds the secret now, and the word (a tag) that most of them answered with."""

    holders: tuple[ClientId, ...]
    word: bytes
    faults: dict[ClientId, str]


class _Turn(Enum):
    JOIN = auto()
    GIVE = auto()
    RECEIVE = auto()


@dataclass
class _Exchange:
    """One exchange of a delivery: envelopes of one step, one part each unless it is the giver's."""

    roster: Roster
    purpose: Purpose
    turn: _Turn
    asked: frozenset[ClientId]
    replies: dict[ClientId, Envelope] = field(default_factory=dict)

    @property
    def accepted(self) -> frozenset[ClientId]:
        return frozenset(self.replies)

    @property
    def largest(self) -> int:
        return LARGEST if self.turn is _Turn.GIVE else SHORT_REPLY

    def fold(self, sender: ClientId, reply: Envelope) -> None:
        step = {_Turn.JOIN: self.purpose.join, _Turn.GIVE: self.purpose.give, _Turn.RECEIVE: self.purpose.receive}[
            self.turn
        ]
        reply.open(self.roster, self.purpose.session, step, sender)
        if self.turn is not _Turn.GIVE and len(reply.parts) != 1:
            raise MalformedMessage(f"{sender} answered with {len(reply.parts)} parts")
        self.replies[sender] = reply


class DeliveryServer:
    """One delivery. Givers are asked in turn until ``needed`` receivers hold the same."""

    def __init__(
        self,
        roster: Roster,
        purpose: Purpose,
        requests: Requests,
        receivers: Sequence[ClientId],
        givers: Sequence[ClientId],
        needed: int = 1,
    ) -> None:
        self._roster = roster
        self._purpose = purpose
        self._requests = requests
        self._givers = list(givers)
        self._needed = needed
        self._words: dict[ClientId, bytes] = {}
        self._joined: dict[ClientId, Envelope] = {}
        self._exchange = self._ask(_Turn.JOIN, receivers)
        self.faults: dict[ClientId, str] = {}

    def open(self) -> Messages:
        return dict.fromkeys(sorted(self._exchange.asked), encode(self._requests.join))

    def advance(self, replies: Replies) -> Messages:
        collect(replies, self._exchange, self.faults)
        match self._exchange.turn:
            case _Turn.JOIN:
                self._joined = dict(sorted(self._exchange.replies.items()))
                return self._ask_giver() if self._joined else {}
            case _Turn.GIVE:
                given = next(iter(self._exchange.replies.values()), None)
                return self._hand_out(given) if given else self._ask_giver()
            case _Turn.RECEIVE:
                self._words |= {name: reply.parts[0] for name, reply in self._exchange.replies.items()}
                short = len(self.result.holders) < self._needed and self._givers
                return self._ask_giver() if short else {}

    @property
    def result(self) -> Delivered:
        counted = Counter(self._words.values()).most_common(1)
        word = counted[0][0] if counted else b""
        return Delivered(tuple(sorted(n for n, said in self._words.items() if said == word)), word, self.faults)

    def _ask_giver(self) -> Messages:
        if not self._givers and self._words:  # some hold it: the caller decides whether they are enough
            return {}
        if not self._givers:
            raise RoundAborted("no client is left to hand over what the others need", self.faults, {})
        giver = self._givers.pop(0)
        self._exchange = self._ask(_Turn.GIVE, [giver])
        return {giver: encode(self._requests.give(tuple(self._joined.values())))}

    def _hand_out(self, given: Envelope) -> Messages:
        try:
            parts = extracts_by_receiver(given)
            if set(parts) != set(self._joined):
                raise MalformedMessage("the giver did not seal one package to each client that joined")
        except MalformedMessage as error:
            self.faults[next(iter(self._exchange.asked))] = str(error)
            return self._ask_giver()
        self._exchange = self._ask(_Turn.RECEIVE, list(parts))
        return {name: encode(self._requests.receive(part)) for name, part in sorted(parts.items())}

    def _ask(self, turn: _Turn, names: Sequence[ClientId]) -> _Exchange:
        return _Exchange(self._roster, self._purpose, turn, frozenset(names))
