"""Which request of a server asks what of a :class:`KeyHolder`: the run's key, its sums and its models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from protocols.aggregation.messages import ApplyRequest, DecryptRequest
from protocols.delivery.messages import (
    InstallModelRequest,
    MakeKeyRequest,
    ReceiveKeyRequest,
    SealModelRequest,
    ShareKeyRequest,
)
from protocols.errors import MalformedMessage
from protocols.wire import decode, kind
from securefl.keyholder import KeyHolder

KINDS: Final = frozenset(
    request.KIND
    for request in (
        MakeKeyRequest,
        ReceiveKeyRequest,
        ShareKeyRequest,
        ApplyRequest,
        DecryptRequest,
        SealModelRequest,
        InstallModelRequest,
    )
)


def answer(request: bytes, holder: Callable[[str], KeyHolder]) -> bytes:
    """The answer of the holder of the run that the request names. Raises ``MalformedMessage`` for any other kind."""
    match kind(request):
        case MakeKeyRequest.KIND:
            return holder((making := decode(request, MakeKeyRequest)).run).make_key(making)
        case ReceiveKeyRequest.KIND:
            return holder((receiving := decode(request, ReceiveKeyRequest)).run).receive_key(receiving)
        case ShareKeyRequest.KIND:
            return holder((sharing := decode(request, ShareKeyRequest)).run).share_key(sharing)
        case ApplyRequest.KIND:
            return holder((applying := decode(request, ApplyRequest)).run).agree(applying)
        case DecryptRequest.KIND:
            return holder((opening := decode(request, DecryptRequest)).run).decrypt(opening)
        case SealModelRequest.KIND:
            return holder((sealing := decode(request, SealModelRequest)).run).seal_model(sealing)
        case InstallModelRequest.KIND:
            return holder((coming := decode(request, InstallModelRequest)).run).install_model(coming)
        case other:
            raise MalformedMessage(f"a message of kind {other} asks nothing of a key holder")
