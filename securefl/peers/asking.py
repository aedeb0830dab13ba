"""One question to several peers, and the well-formed answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

from protocols.base import Exchange
from protocols.errors import ProtocolError
from protocols.wire import Message, decode, encode

M = TypeVar("M", bound=Message)


def ask(reach: Exchange, peers: Collection[str], question: Message, answer: type[M]) -> Mapping[str, M]:
    """By peer; who is silent, refuses or says something else is left out."""
    found: dict[str, M] = {}
    if not peers:
        return found
    for peer, reply in reach(dict.fromkeys(peers, encode(question))):
        if peer in found or peer not in peers:
            continue
        try:
            found[peer] = decode(reply, answer)
        except ProtocolError:
            continue
    return found
