"""The server's side of a key's delivery: it relays what it cannot open. If a giver is no good, the next is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from protocols.aggregation.collect import collect
from protocols.aggregation.messages import SHORT_REPLY, Envelope, Extract
from protocols.aggregation.session import Roster, Step
from protocols.aggregation.verify import read
from protocols.base import ClientId, Messages, Replies
from protocols.delivery.client import extracts_by_receiver
from protocols.delivery.messages import Package
from protocols.errors import MalformedMessage, RoundAborted
from protocols.primitives import KEY_BYTES, AgreementKey
from protocols.wire import Message, encode

# A package for one receiver, with the names in it.
_PACKAGE_BYTES = 4096
# With a key of low order every key agrees on nothing, so that one which hides nothing is enough to find out.
_PROBE = AgreementKey(bytes(KEY_BYTES))


@dataclass(frozen=True)
class Requests:
    """How the three requests are made, and what a giver must say that it gave (None: whatever it says)."""

    join: Message
    give: Callable[[tuple[Envelope, ...]], Message]
    receive: Callable[[Extract], Message]
    about: bytes | None = None


@dataclass(frozen=True)
class Delivered:
    """What the most clients were given by one giver, the later of equals, and their signed replies; how many joined."""

    about: bytes
    replies: Mapping[ClientId, Envelope]
    faults: dict[ClientId, str]
    joined: int = 0


@dataclass
class Asked:
    """One exchange of a delivery: envelopes of one step and, unless they are a giver's, of one part."""

    roster: Roster
    session: bytes
    step: Step
    asked: frozenset[ClientId]
    largest: int = SHORT_REPLY
    replies: dict[ClientId, Envelope] = field(default_factory=dict)

    @property
    def accepted(self) -> frozenset[ClientId]:
        return frozenset(self.replies)

    def fold(self, sender: ClientId, reply: Envelope) -> None:
        reply.open(self.roster, self.session, self.step, sender)
        if self.step is not Step.GIVE_KEY and len(reply.parts) != 1:
            raise MalformedMessage(f"{sender} answered with {len(reply.parts)} parts")
        if self.step is Step.JOIN:  # one that nobody can seal to would make every honest giver refuse
            _PROBE.agree(reply.parts[0])
        self.replies[sender] = reply


class KeyDelivery:
    """One delivery of a CKKS key. Givers are asked in turn until ``needed`` receivers hold what one of them gave, or
    all who joined; none is asked if fewer than ``least`` join.
    """

    def __init__(
        self,
        roster: Roster,
        session: bytes,
        requests: Requests,
        receivers: Sequence[ClientId],
        givers: Sequence[ClientId],
        needed: int,
        least: int = 1,
    ) -> None:
        self._roster = roster
        self._session = session
        self._requests = requests
        self._givers = list(givers)
        self._needed = needed
        self._least = least
        self._joined: dict[ClientId, Envelope] = {}
        self._about = b""
        self._best = Delivered(b"", {}, {})
        self._exchange = self._ask(Step.JOIN, receivers)
        self.faults: dict[ClientId, str] = {}

    def open(self) -> Messages:
        return dict.fromkeys(sorted(self._exchange.asked), encode(self._requests.join))

    def advance(self, replies: Replies) -> Messages:
        collect(replies, self._exchange, self.faults)
        match self._exchange.step:
            case Step.JOIN:
                self._joined = dict(sorted(self._exchange.replies.items()))
                return self._ask_giver() if len(self._joined) >= self._least else {}
            case Step.GIVE_KEY:
                given = next(iter(self._exchange.replies.values()), None)
                return self._hand_out(given) if given else self._ask_giver()
            case _:
                if len(self._exchange.replies) >= len(self._best.replies):
                    self._best = Delivered(self._about, self._exchange.replies, self.faults)
                return self._ask_giver() if len(self._best.replies) < min(self._needed, len(self._joined)) else {}

    @property
    def result(self) -> Delivered:
        return Delivered(self._best.about, self._best.replies, self.faults, len(self._joined))

    def _ask_giver(self) -> Messages:
        if not self._givers and self._best.replies:  # some hold it: the caller decides whether they are enough
            return {}
        if not self._givers:
            raise RoundAborted("no client is left to hand over the key that the others need", self.faults, {})
        giver = self._givers.pop(0)
        self._exchange = self._ask(Step.GIVE_KEY, [giver], SHORT_REPLY + len(self._joined) * _PACKAGE_BYTES)
        return {giver: encode(self._requests.give(tuple(self._joined.values())))}

    def _hand_out(self, given: Envelope) -> Messages:
        try:
            parts = extracts_by_receiver(given)
            self._about = self._agreed(parts)
        except MalformedMessage as error:
            self.faults[next(iter(self._exchange.asked))] = str(error)
            return self._ask_giver()
        self._exchange = self._ask(Step.RECEIVE_KEY, list(parts))
        return {name: encode(self._requests.receive(part)) for name, part in sorted(parts.items())}

    def _agreed(self, parts: Mapping[ClientId, Extract]) -> bytes:
        """What all packages say is in them. Raises ``MalformedMessage`` unless it is one thing, the one asked for."""
        said = {read([extract.part], Package).about for extract in parts.values()}
        wanted = said if self._requests.about is None else {self._requests.about}
        if set(parts) != set(self._joined) or len(said) != 1 or said != wanted:
            raise MalformedMessage("the giver did not seal one and the right key to each client that joined")
        return said.pop()

    def _ask(self, step: Step, names: Sequence[ClientId], largest: int = SHORT_REPLY) -> Asked:
        return Asked(self._roster, self._session, step, frozenset(names), largest)
