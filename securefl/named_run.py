"""Which run a request is about, as it says itself: what decides who may ask it, and under which plan it is answered."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from protocols.aggregation.messages import ApplyRequest, DecryptRequest, KeysRequest
from protocols.delivery.messages import (
    InstallModelRequest,
    JoinRequest,
    MakeKeyRequest,
    ReceiveKeyRequest,
    SealModelRequest,
    ShareKeyRequest,
)
from protocols.errors import MalformedMessage
from protocols.wire import decode, kind
from securefl.announcement import Run
from securefl.closing import EndorseRequest, StateRequest
from securefl.errors import BadInput
from securefl.plan import Plan
from securefl.proposal import Propose

_Named = (
    Propose
    | MakeKeyRequest
    | ReceiveKeyRequest
    | ShareKeyRequest
    | ApplyRequest
    | DecryptRequest
    | SealModelRequest
    | InstallModelRequest
    | StateRequest
    | EndorseRequest
)
_NAMED: Final[dict[int, type[_Named]]] = {
    request.KIND: request
    for request in (
        Propose,
        MakeKeyRequest,
        ReceiveKeyRequest,
        ShareKeyRequest,
        ApplyRequest,
        DecryptRequest,
        SealModelRequest,
        InstallModelRequest,
        StateRequest,
        EndorseRequest,
    )
}


class Begun(Struct, frozen=True, array_like=True):
    """The beginning of an announcement; what follows is the client's to read."""

    run: Run
    round: int
    attempt: int
    plan: Plan


def begun(request: bytes) -> Begun | None:
    """What a request announces that begins something; None of any other. Raises ``MalformedMessage``."""
    match kind(request):
        case KeysRequest.KIND:
            announcement = decode(request, KeysRequest).announcement
        case JoinRequest.KIND:
            announcement = decode(request, JoinRequest).announcement
        case _:
            return None
    try:
        return msgspec.msgpack.decode(announcement, type=Begun, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadInput) as error:
        raise MalformedMessage(f"not an announcement: {error}") from error


def named_run(request: bytes) -> str | None:
    """The run's name; None of a request that goes by its session. Raises ``MalformedMessage``."""
    if (announced := begun(request)) is not None:
        return announced.run
    named = _NAMED.get(kind(request))
    return None if named is None else decode(request, named).run
