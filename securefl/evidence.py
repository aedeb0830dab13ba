"""Signed words about a model: enough of them say which model is the right one, whoever hands it over."""

from __future__ import annotations

from collections.abc import Sequence

from protocols.aggregation.apply import Applied
from protocols.aggregation.messages import Envelope
from protocols.aggregation.session import Roster, Step
from protocols.aggregation.verify import read
from protocols.errors import Inconsistent
from securefl.announcement import KeyReceived


def check_signed(roster: Roster, tag: bytes, evidence: Sequence[Envelope], needed: int) -> None:
    """Raise unless so many clients signed that this is the tag of their model.

    ``tag`` is computed by the caller, from its own key and the model itself. It binds run, round and key, so that it
    does not matter in which session somebody signed it.
    """
    if len(evidence) > len(roster.keys):
        raise Inconsistent(f"{len(evidence)} signed words of {len(roster.keys)} clients")
    signers = {sender for reply in evidence if (sender := _signer(roster, reply, tag)) is not None}
    if len(signers) < needed:
        raise Inconsistent(f"{len(signers)} clients signed the tag of the model, {needed} are needed")


def _signer(roster: Roster, reply: Envelope, tag: bytes) -> str | None:
    """Who signed that its model has this tag, by applying a sum or on receiving a key; None for any other tag."""
    header = reply.signed.authenticate(roster)
    step = Step.APPLY if header.step == Step.APPLY else Step.RECEIVE_KEY
    reply.open(roster, header.session, step, header.sender)
    said = read(reply.parts, Applied) if step is Step.APPLY else read(reply.parts, KeyReceived)
    return header.sender if said.tag == tag else None
