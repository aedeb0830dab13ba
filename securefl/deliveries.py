"""What the server relays and cannot read: the run's CKKS key, and the model to who missed a sum."""

from __future__ import annotations

from collections.abc import Sequence

from protocols.aggregation.messages import Envelope
from protocols.aggregation.session import Roster
from protocols.base import Exchange, drive
from protocols.delivery.checkpoint import CaughtUp, ModelDelivery, Wanted
from protocols.delivery.messages import (
    InstallModelRequest,
    JoinRequest,
    MakeKeyRequest,
    ReceiveKeyRequest,
    SealModelRequest,
    ShareKeyRequest,
    catch_up,
    key_setup,
)
from protocols.delivery.server import Delivered, KeyDelivery, Requests
from protocols.errors import RoundAborted
from securefl import global_state
from securefl.announcement import Announcement

# A giver that hands out nothing usable is followed by the next, but not for ever: a model may be large.
_GIVERS = 3
# What sealing adds to a model.
_SEALING_BYTES = 1024


def new_key(announced: Announcement, roster: Roster, needed: int, exchange: Exchange) -> Delivered:
    """Have one client make a key and hand it to all who answer; the next one makes another if too few receive it."""
    run, number = announced.run, announced.round
    requests = Requests(
        JoinRequest(announced.encoded()),
        lambda joined: MakeKeyRequest(run, number, joined),
        lambda given: ReceiveKeyRequest(run, number, given),
    )
    everyone = sorted(announced.plan.clients)
    session = key_setup(run, announced.plan.digest(), roster, number)
    return drive(KeyDelivery(roster, session, requests, everyone, everyone, needed, needed), exchange)


def share_key(
    announced: Announcement, roster: Roster, holders: Sequence[str], behind: Sequence[str], exchange: Exchange
) -> Delivered:
    """Have a client hand the announced key to those who are behind, if one that has it answers."""
    run, number, key_id = announced.run, announced.round, announced.key_id
    requests = Requests(
        JoinRequest(announced.encoded()),
        lambda joined: ShareKeyRequest(run, number, key_id, joined),
        lambda given: ReceiveKeyRequest(run, number, given),
        key_id,
    )
    session = key_setup(run, announced.plan.digest(), roster, number)
    try:
        return drive(KeyDelivery(roster, session, requests, behind, holders[:_GIVERS], len(behind)), exchange)
    except RoundAborted as error:
        return Delivered(key_id, {}, error.faults)


def deliver_model(
    announced: Announcement,
    roster: Roster,
    evidence: tuple[Envelope, ...],
    holders: Sequence[str],
    behind: Sequence[str],
    kept: Envelope | None,
    exchange: Exchange,
) -> CaughtUp:
    """Have the announced round's model handed to those who are behind, as ``kept`` or sealed anew by one who has it.

    ``evidence``: signed replies with its tag, of ``holders``, who are asked in this order.
    """
    run, number, plan = announced.run, announced.round, announced.plan
    wanted = Wanted(
        catch_up(run, plan.digest(), roster, number),
        announced.tag,
        4 * global_state.length(plan) + _SEALING_BYTES,
        SealModelRequest(run, number, announced.key_id),
        lambda checkpoint: InstallModelRequest(run, number, checkpoint, evidence),
    )
    return drive(ModelDelivery(roster, wanted, behind, holders[:_GIVERS], kept), exchange)
