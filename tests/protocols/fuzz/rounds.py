"""Rounds in which things go wrong, one exchange at a time, and what must hold after each. Not a test.

The wire may lose, change, replay and swap messages both ways; members may sign what they like. Then

- nothing but ``ProtocolError`` ever leaves a client or the server, and a client is spent after it;
- what arrives changed is not accepted, nor what nobody was asked for;
- a round ends after a fixed number of exchanges;
- if no member lied, a sum that comes out is right to the bit (under CKKS to the grid);
- named are those whose messages or requests were touched, and nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocols.aggregation.disputes import suspects as suspected
from protocols.aggregation.messages import Complaint, Envelope, Header, Refusal, envelope
from protocols.aggregation.server import Aggregate
from protocols.aggregation.session import Step
from protocols.aggregation.states import Spent
from protocols.base import ClientId, Messages
from protocols.encoding.fixedpoint import FixedPoint
from protocols.errors import MalformedMessage, ProtocolError, RoundAborted
from protocols.wire import decode, encode
from tests.protocols.cohort import encoding, identity, make, names, steps_of
from tests.protocols.fuzz.mutation import mutated, resigned

DIMENSION = 4
STRANGER = "stranger"
CELLS = ("secagg", "plain", "ckks")

REPLAYED = ("old", "of the attempt before", "of the exchange before", "another's")
ON_THE_WAY = ("lost", "cut", "flipped", "changed", *REPLAYED)
LIES = ("signs another body", "complains")
IN_REPLY = (*ON_THE_WAY, "refuses", "says it twice", *LIES)
WHATS = (*(f"request {what}" for what in ON_THE_WAY), *(f"reply {what}" for what in IN_REPLY))


@dataclass(frozen=True)
class Trouble:
    """What happens to one client in one exchange. ``number`` and ``where`` choose among the ways."""

    what: str
    number: int
    where: float


class Rounds:
    """Attempts at rounds of one cohort, one after the other; old messages of all of them may come again."""

    def __init__(self, cell: str, count: int) -> None:
        self.cell, self.count, self.attempt = cell, count, 0
        self.heard: list[bytes] = [b""]
        self.log: dict[tuple[int, int, str, ClientId], bytes] = {}
        self.next_attempt()

    def next_attempt(self) -> None:
        self.attempt += 1
        self.cohort = make(self.cell, self.count, DIMENSION, attempt=self.attempt, inputs=self._inputs())
        self.server = self.cohort.server()
        self.requests: Messages = self.server.open()
        self.exchanges = 0
        self.touched: set[ClientId] = {STRANGER}
        self.liars: set[ClientId] = set()

    def finish(self) -> None:
        """From here on all goes well, and the attempt comes to its end."""
        while self.requests:
            self.exchange({})

    def exchange(self, plan: Mapping[ClientId, Trouble], unasked: bool = False, backwards: bool = False) -> None:
        said = {name: self._asked(name, plan.get(name)) for name in self.requests}
        self._remember(said)
        replies = [reply for name in said for reply in self._replied(name, plan.get(name), said)]
        if unasked:
            replies += self._unasked(said)
        self._advance(replies[::-1] if backwards else replies, said)

    def _inputs(self) -> dict[ClientId, NDArray[np.float64]]:
        """Updates of this attempt alone, so that an old one shows, which fixed point encodes exactly with any coins."""
        coder = encoding(self.cell, DIMENSION, self.count)
        step = coder.step if isinstance(coder, FixedPoint) else 2.0**-20
        generator = np.random.default_rng(self.attempt)
        steps = {name: generator.integers(-(1 << 20), 1 << 20, DIMENSION) for name in names(self.count)}
        return {name: vector.astype(np.float64) * step for name, vector in steps.items()}

    # ---- the clients' side

    def _asked(self, name: ClientId, trouble: Trouble | None) -> bytes | None:
        """What the client says to the request as it arrives."""
        arrived: bytes | None = self.requests[name]
        if trouble and trouble.what.startswith("request "):
            self.touched.add(name)
            arrived = self._on_the_way(trouble, name, self.requests)
        if arrived is None:
            return None
        client = self.cohort.clients[name]
        before = client._state
        try:
            reply = client.handle(arrived)
        except ProtocolError:
            assert isinstance(client._state, Spent)
            assert name in self.touched or isinstance(before, Spent) or self.liars
            return None
        assert not isinstance(before, Spent)
        return reply

    def _remember(self, said: Mapping[ClientId, bytes | None]) -> None:
        for direction, messages in (("request", self.requests), ("reply", said)):
            known = {name: data for name, data in messages.items() if data is not None}
            self.heard += known.values()
            self.log |= {(self.attempt, self.exchanges, direction, name): data for name, data in known.items()}

    def _replied(
        self, name: ClientId, trouble: Trouble | None, said: Mapping[ClientId, bytes | None]
    ) -> list[tuple[ClientId, bytes]]:
        """What arrives at the server of what the client said."""
        reply = said[name]
        if not trouble or not trouble.what.startswith("reply ") or reply is None:
            return [] if reply is None else [(name, reply)]
        match trouble.what.removeprefix("reply "):
            case "complains" | "signs another body":
                self.liars.add(name)
                return [(name, self._lie(trouble, name, reply))]
            case "says it twice":
                self.touched.add(name)
                return [(name, reply), (name, reply)]
            case "refuses":
                self.touched.add(name)
                return [(name, encode(Refusal("spent")))]
        self.touched.add(name)
        others = {other: data for other, data in said.items() if data is not None}
        arrived = self._on_the_way(trouble, name, others)
        return [] if arrived is None else [(name, arrived)]

    def _on_the_way(self, trouble: Trouble, name: ClientId, others: Messages) -> bytes | None:
        data, rng = others[name], np.random.default_rng(trouble.number)
        direction, what = trouble.what.split(" ", 1)
        match what:
            case "lost":
                return None
            case "cut":
                return data[: int(trouble.where * len(data))]
            case "flipped":
                place = int(trouble.where * len(data))
                return data[:place] + bytes([data[place] ^ 1 << trouble.number % 8]) + data[place + 1 :]
            case "changed":
                return mutated(rng, data, self.heard)
            case "old":
                return self.heard[trouble.number % len(self.heard)]
            case "of the attempt before":
                return self.log.get((self.attempt - 1, self.exchanges, direction, name), b"")
            case "of the exchange before":
                return self.log.get((self.attempt, self.exchanges - 1, direction, name), b"")
            case _:
                return others[list(others)[trouble.number % len(others)]]

    def _lie(self, trouble: Trouble, name: ClientId, reply: bytes) -> bytes:
        if trouble.what == "reply signs another body":
            return resigned(np.random.default_rng(trouble.number), reply, identity(name))
        accused = tuple(peer for place, peer in enumerate(names(self.count + 2)) if trouble.number >> place & 1)
        header = msgspec.structs.replace(_header(reply), step=Step.COMPLAINT)
        return encode(envelope(identity(name), header, [msgspec.msgpack.encode(Complaint(accused))]))

    def _unasked(self, said: Mapping[ClientId, bytes | None]) -> list[tuple[ClientId, bytes]]:
        """A stranger, and whoever dropped out before says, rightly signed, what those who were asked say."""
        sample = next((data for data in said.values() if data is not None), None)
        if sample is None:
            return [(STRANGER, b"")]
        gone = [name for name in names(self.count) if name not in said]
        self.touched |= set(gone)
        parts = decode(sample, Envelope).parts
        spoken = {name: msgspec.structs.replace(_header(sample), sender=name) for name in gone}
        late = [(name, encode(envelope(identity(name), header, parts))) for name, header in spoken.items()]
        return [(STRANGER, sample), (STRANGER, b""), *late]

    # ---- the server's side

    def _advance(self, replies: list[tuple[ClientId, bytes]], said: Mapping[ClientId, bytes | None]) -> None:
        self.exchanges += 1
        assert self.exchanges <= len(steps_of(self.cell))
        stage = self.server._stage
        try:
            self.requests = dict(self.server.advance(replies))
        except RoundAborted as aborted:
            assert aborted.faults == self.server.faults
            self.requests = {}
        else:
            if not self.requests:
                self._finished(self.server.result)
        assert stage.accepted <= set(said)
        for name in stage.accepted - self.liars:
            assert any(sender == name and _as_said(data, said[name]) for sender, data in replies)
        self._only_the_guilty_are_named()

    def _finished(self, aggregate: Aggregate) -> None:
        assert len(aggregate.contributors) >= self.cohort.terms.rules.least(len(aggregate.sum.proof.cohort))
        if not self.liars:  # what a member puts in is its own to choose
            assert self.cohort.is_right(aggregate)
            if self.cell != "ckks":
                exact = self.cohort.truth(aggregate.contributors)
                assert (self.cohort.decoded(aggregate) == exact).all()

    def _only_the_guilty_are_named(self) -> None:
        """Who complains is listed with its complaint, and whom it complains about as disputed. Of three, one liar is
        more than is provided for.
        """
        faults, suspects = self.server.faults, suspected(self.server._disputes)
        assert set(faults) <= {STRANGER, *names(self.count)} and suspects <= set(faults)
        said = ("cannot open the shares", "disputed: ")
        if len(self.liars) <= 1 and self.count > 3:
            assert {name for name, why in faults.items() if not why.startswith(said)} <= self.touched | self.liars
            assert not suspects or self.liars & suspects  # one liar is never the one that stays
        if not self.liars:
            assert not any(why.startswith(("blamed", *said)) for why in faults.values()) and not suspects


def _header(reply: bytes) -> Header:
    return msgspec.msgpack.decode(decode(reply, Envelope).signed.header, type=Header)


def _as_said(arrived: bytes, said: bytes | None) -> bool:
    """Whether it says the same. MessagePack can put one number in several ways, and only the header is signed."""
    with suppress(MalformedMessage):
        return said is not None and decode(arrived, Envelope) == decode(said, Envelope)
    return False
