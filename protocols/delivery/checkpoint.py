"""The server's side of a catch-up: have the model sealed once by one who has it, and hand that to those who lack it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from protocols.aggregation.collect import collect
from protocols.aggregation.messages import SHORT_REPLY, Envelope
from protocols.aggregation.session import Roster, Step
from protocols.aggregation.verify import read
from protocols.base import ClientId, Messages, Replies
from protocols.delivery.messages import Checkpoint
from protocols.delivery.server import Asked
from protocols.errors import ProtocolError
from protocols.wire import Message, encode


@dataclass(frozen=True)
class Wanted:
    """Which model is handed out: its session and tag, the most bytes it has sealed, and how both requests are made."""

    session: bytes
    tag: bytes
    largest: int
    seal: Message
    install: Callable[[Envelope], Message]


@dataclass(frozen=True)
class CaughtUp:
    """Who has the model now, and the sealed model itself, to be kept: the server cannot read it."""

    holders: tuple[ClientId, ...]
    checkpoint: Envelope | None
    faults: dict[ClientId, str]


class ModelDelivery:
    """One catch-up. ``kept`` is a checkpoint from before; where nobody can use it, ``givers`` are asked in turn.

    With nobody ``behind`` it makes a checkpoint, no more.
    """

    def __init__(
        self,
        roster: Roster,
        wanted: Wanted,
        behind: Sequence[ClientId],
        givers: Sequence[ClientId],
        kept: Envelope | None = None,
    ) -> None:
        self._roster = roster
        self._wanted = wanted
        self._behind = set(behind)
        self._givers = list(givers)
        self._checkpoint = kept
        self._holders: set[ClientId] = set()
        self._exchange = Asked(roster, wanted.session, Step.SEAL_MODEL, frozenset())
        self.faults: dict[ClientId, str] = {}

    def open(self) -> Messages:
        return self._hand_out() if self._checkpoint else self._ask_giver()

    def advance(self, replies: Replies) -> Messages:
        faults: dict[ClientId, str] = {}
        collect(replies, self._exchange, faults)
        self.faults |= faults
        if self._exchange.step is Step.SEAL_MODEL:
            sealed = self._sealed()
            self._checkpoint = sealed or self._checkpoint
            return self._hand_out() if sealed else self._ask_giver()
        installed = {name for name, reply in self._exchange.replies.items() if reply.parts[0] == self._wanted.tag}
        self._holders |= installed
        self._behind -= installed
        if not faults:
            return {}
        # Some who answered could not use it: it may be none, whatever others say that did.
        self._checkpoint = self._checkpoint if installed else None
        return self._ask_giver()

    @property
    def result(self) -> CaughtUp:
        return CaughtUp(tuple(sorted(self._holders)), self._checkpoint, self.faults)

    def _ask_giver(self) -> Messages:
        if not self._givers:
            return {}
        giver = self._givers.pop(0)
        largest = SHORT_REPLY + self._wanted.largest
        self._exchange = Asked(self._roster, self._wanted.session, Step.SEAL_MODEL, frozenset([giver]), largest)
        return {giver: encode(self._wanted.seal)}

    def _sealed(self) -> Envelope | None:
        for giver, reply in self._exchange.replies.items():
            try:
                if read(reply.parts, Checkpoint).tag == self._wanted.tag:
                    return reply
                self.faults[giver] = "sealed another model than was asked for"
            except ProtocolError as error:
                self.faults[giver] = str(error)
        return None

    def _hand_out(self) -> Messages:
        if self._checkpoint is None or not self._behind:
            return {}
        self._exchange = Asked(self._roster, self._wanted.session, Step.INSTALL_MODEL, frozenset(self._behind))
        return dict.fromkeys(sorted(self._behind), encode(self._wanted.install(self._checkpoint)))
