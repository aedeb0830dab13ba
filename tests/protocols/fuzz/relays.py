"""Deliveries of a key and of a model that have come to one exchange, for bytes that claim to be a reply. Not a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TypeVar

from protocols.aggregation.messages import Envelope
from protocols.base import ClientId
from protocols.delivery.checkpoint import ModelDelivery, Wanted
from protocols.delivery.messages import (
    InstallModelRequest,
    JoinRequest,
    MakeKeyRequest,
    ReceiveKeyRequest,
    SealModelRequest,
)
from protocols.delivery.server import KeyDelivery, Requests
from protocols.wire import decode, encode
from tests.protocols.cohort import names, roster
from tests.protocols.fuzz.corpus import (
    COUNT,
    KEY_ID,
    KEY_SESSION,
    MODEL,
    MODEL_SESSION,
    TAG,
    VICTIM,
    checkpoint,
    given,
    installed,
    joined,
    received,
)

REQUESTS = Requests(JoinRequest(b""), partial(MakeKeyRequest, "run", 3), partial(ReceiveKeyRequest, "run", 3), KEY_ID)
WANTED = Wanted(
    MODEL_SESSION,
    TAG,
    len(MODEL) + 1024,
    SealModelRequest("run", 3, KEY_ID),
    lambda given: InstallModelRequest("run", 3, given, ()),
)
# The victim gives first; who is asked after it is not blamed for what it said.
GIVERS = (VICTIM, "c0", "c2")

Server = KeyDelivery | ModelDelivery
S = TypeVar("S", KeyDelivery, ModelDelivery)
Replies = Mapping[ClientId, bytes]


@dataclass(frozen=True)
class Relay:
    """One exchange of a delivery: a server that has come to it, and what it honestly hears."""

    name: str
    replies: Replies = field(repr=False)
    server: Callable[[], Server]

    def takes(self, data: bytes) -> bool:
        """Whether the server takes these bytes for the victim's reply: if so, they must be that. It goes on anyway."""
        server = self.server()
        server.advance([(VICTIM, data)])
        if VICTIM in server.faults:
            return False
        assert decode(data, Envelope) == decode(self.replies[VICTIM], Envelope)
        return True


@cache
def relays() -> tuple[Relay, ...]:
    """All exchanges of both deliveries; the victim takes part in each."""
    join, take, install = _by_sender(joined()), _by_sender(received()), _by_sender(installed())
    gift, sealed = {VICTIM: encode(given(VICTIM))}, {VICTIM: encode(checkpoint(VICTIM))}
    return (
        Relay("joining", join, _key_delivery),
        Relay("giving", gift, partial(_key_delivery, join)),
        Relay("receiving", take, partial(_key_delivery, join, gift)),
        Relay("sealing", sealed, _model_delivery),
        Relay("installing", install, partial(_model_delivery, sealed)),
    )


def _by_sender(said: tuple[Envelope, ...]) -> Replies:
    return dict(zip(names(COUNT), map(encode, said), strict=True))


def _key_delivery(*heard: Replies) -> KeyDelivery:
    return _after(KeyDelivery(roster(COUNT), KEY_SESSION, REQUESTS, names(COUNT), GIVERS, COUNT), heard)


def _model_delivery(*heard: Replies) -> ModelDelivery:
    return _after(ModelDelivery(roster(COUNT), WANTED, names(COUNT), GIVERS), heard)


def _after(server: S, heard: tuple[Replies, ...]) -> S:
    server.open()
    for replies in heard:
        assert server.advance(replies.items())
    return server
