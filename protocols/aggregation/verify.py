"""Checks that clients and server share: bodies that decode, and enough signatures over one survivor set."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

import msgspec

from protocols.aggregation.messages import Signed
from protocols.aggregation.session import Step, Terms
from protocols.base import ClientId
from protocols.errors import Inconsistent, MalformedMessage
from protocols.merkle import tree_of

T = TypeVar("T")


def read(parts: Sequence[bytes], body: type[T]) -> T:
    """The one part of a body, decoded. Raises ``MalformedMessage`` for any other number or any other bytes."""
    if len(parts) != 1:
        raise MalformedMessage(f"a body of {len(parts)} parts where one {body.__name__} was expected")
    try:
        return msgspec.msgpack.decode(parts[0], type=body, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedMessage(f"the body is no {body.__name__}: {error}") from error


def check_consents(
    terms: Terms, consents: Sequence[Signed], statement: bytes, survivors: Collection[ClientId], threshold: int
) -> None:
    """Raise unless at least ``threshold`` distinct survivors signed exactly this statement."""
    signers, body = set(), tree_of([statement]).root
    for consent in consents:
        header = consent.open(terms.roster, terms.session, Step.CONSISTENCY)
        if header.sender not in survivors or header.body != body:
            raise Inconsistent(f"{header.sender} signed another survivor set")
        signers.add(header.sender)
    if len(signers) < threshold or len(signers) != len(consents):
        raise Inconsistent(f"{len(signers)} distinct clients signed the survivor set, {threshold} are needed")
