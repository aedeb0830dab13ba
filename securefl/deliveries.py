"""What the server relays and cannot read: the run's CKKS key before the first round, a model to who missed a sum."""

from __future__ import annotations

from collections.abc import Sequence

from protocols.aggregation.messages import Envelope
from protocols.aggregation.session import Roster
from protocols.base import Exchange, drive
from protocols.delivery.messages import (
    CatchUpRequest,
    InstallModelRequest,
    JoinRequest,
    MakeKeyRequest,
    ReceiveKeyRequest,
    SealModelRequest,
    catch_up,
    key_setup,
)
from protocols.delivery.server import Delivered, DeliveryServer, Requests
from securefl.announcement import Announcement


def deliver_key(announced: Announcement, roster: Roster, exchange: Exchange) -> Delivered:
    """Have one client make the run's key and hand it to all who answer; the next one makes it if too few receive it."""
    run, plan = announced.run, announced.plan
    requests = Requests(
        JoinRequest(announced.encoded()),
        lambda joined: MakeKeyRequest(run, joined),
        lambda given: ReceiveKeyRequest(run, given),
    )
    everyone = sorted(plan.clients)
    session = DeliveryServer(roster, key_setup(run, plan.digest(), roster), requests, everyone, everyone, plan.minimum)
    return drive(session, exchange)


def deliver_model(
    announced: Announcement, roster: Roster, evidence: tuple[Envelope, ...], behind: Sequence[str], exchange: Exchange
) -> Delivered:
    """Have a client that signed for the announced round's model hand it to those who are behind."""
    run, number = announced.run, announced.round
    requests = Requests(
        CatchUpRequest(run, number),
        lambda joined: SealModelRequest(run, number, joined),
        lambda given: InstallModelRequest(run, number, given, evidence),
    )
    purpose = catch_up(run, announced.plan.digest(), roster, number)
    givers = [reply.signed.authenticate(roster).sender for reply in evidence]
    return drive(DeliveryServer(roster, purpose, requests, behind, givers, len(behind)), exchange)
