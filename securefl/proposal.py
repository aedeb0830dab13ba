"""Before a run: a coordinator shows owners the plan, and hears whether they take part. Words, which bind nobody.

What binds is the owner's own check of every round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import msgspec

from protocols.aggregation.messages import RunName
from protocols.base import Exchange
from protocols.errors import MalformedMessage, ProtocolError
from protocols.wire import Message, decode, encode
from securefl.errors import BadInput
from securefl.plan import Plan

Word = Literal["accepted", "pending", "refused", "budget"]


class Propose(Message, frozen=True):
    """Asks whether the owner takes part in a run under this plan, in its own encoding."""

    KIND: ClassVar[int] = 16
    run: RunName
    plan: Annotated[bytes, msgspec.Meta(max_length=1 << 24)]


class Consent(Message, frozen=True):
    """The owner's word. ``pending``: somebody has to look at the plan first."""

    KIND: ClassVar[int] = 36
    word: Word


def plan_of(proposal: Propose) -> Plan:
    """Raises ``MalformedMessage`` for what is no plan."""
    try:
        return msgspec.json.decode(proposal.plan, type=Plan)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadInput) as error:
        raise MalformedMessage(f"not a plan: {error}") from error


def consents(run: str, plan: Plan, exchange: Exchange) -> Mapping[str, Word]:
    """What owners say, by name; who is silent or says something else is left out."""
    request = encode(Propose(run, plan.encoded()))
    found: dict[str, Word] = {}
    for client, reply in exchange(dict.fromkeys(plan.clients, request)):
        try:
            found[client] = decode(reply, Consent).word
        except ProtocolError:
            continue
    return found
