"""Attacks on the keys that masks come from: substituted, equal, of low order."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

import msgspec
import pytest

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import Advertised, Envelope, Header, KeysRequest, SharePair
from protocols.aggregation.session import Step
from protocols.aggregation.states import Advertising, Sharing, State
from protocols.base import ClientId
from protocols.errors import Forged, Inconsistent
from protocols.masking import Mask, mask_key
from protocols.primitives import AgreementKey, Identity
from tests.protocols.attacks.adversary import VICTIM, Adversary, cohort_of, without
from tests.protocols.attacks.puppets import Puppet, surround
from tests.protocols.attacks.weak import TakesEqualKeys, TakesKeyList
from tests.protocols.cohort import names

# ---- the server's keys in other clients' names


class TakesUnsignedKeys(TakesKeyList):
    """Takes the keys of the list for those of the clients named beside them."""

    def _sender(self, listed: Envelope) -> ClientId:
        return msgspec.msgpack.decode(listed.signed.header, type=Header).sender


def stand_in_for_everybody(server: Adversary) -> None:
    surround(server, [Puppet(name, Identity.generate(os.urandom)) for name in without(VICTIM)])


@pytest.mark.attack("the server's keys in place of the other clients'")
def test_keys_that_their_owner_did_not_sign_are_refused() -> None:
    weak, real = Adversary(cohort_of(TakesUnsignedKeys)), Adversary(cohort_of(AggregationClient))
    stand_in_for_everybody(weak)
    assert weak.reads(VICTIM)
    with pytest.raises(Forged, match="signature of c0"):
        stand_in_for_everybody(real)
    assert real.cohort.asked_for_update == []


# ---- equal keys


def say_instead(server: Adversary, name: ClientId, **keys: bytes) -> None:
    """A dishonest client advertises other keys than it holds, under its own signature."""
    client = server.cohort.clients[name]
    server.ask(name, KeysRequest(b""))
    state = client._state
    assert isinstance(state, Advertising)
    body = msgspec.structs.replace(msgspec.msgpack.decode(state.own.parts[0], type=Advertised), **keys)
    said = client._envelope(Step.KEYS, b"", [msgspec.msgpack.encode(body)])
    client._state = replace(state, own=said)
    server.heard[Step.KEYS][name] = said


class MasksByKeyAlone(TakesEqualKeys):
    """Nor that: two peers with one key share one mask."""

    def _masks(self, state: Sharing, held: Mapping[ClientId, SharePair]) -> list[Mask]:
        terms, masks = self._terms, super()._masks(state, held)
        for place, peer in enumerate(held, 1):
            secret = state.mask.agree(state.cohort.advertised[peer].mask_key)
            pair = (b"", b"")
            key = mask_key(secret, "pair mask", terms.session, terms.layout.ring, terms.layout.length, pair)
            masks[place] = replace(masks[place], key=key)
        return masks


BETWEEN = "c2"  # it takes away what c0 and c1 add, and adds what c3 and c4 take away


def copy_the_keys_of_the_peers_before(server: Adversary) -> None:
    """c3 and c4 copy the mask keys of c0 and c1: each mask of the client between them is added and taken away."""
    server.advertise_keys(["c0", "c1", BETWEEN])
    for copyist, copied in (("c3", "c0"), ("c4", "c1")):
        say_instead(server, copyist, mask_key=server.public(copied))
    server.share_keys()
    server.mask_input()
    server.sign(names(5))
    server.open(names(5))


def among_copyists(client: type[AggregationClient]) -> Adversary:
    return Adversary(cohort_of(client, others=dict.fromkeys(("c3", "c4"), MasksByKeyAlone)))


@pytest.mark.attack("equal public keys")
def test_keys_that_two_clients_share_are_refused() -> None:
    weak, bound, real = map(among_copyists, (MasksByKeyAlone, TakesEqualKeys, AggregationClient))
    copy_the_keys_of_the_peers_before(weak)
    assert weak.reads(BETWEEN)
    copy_the_keys_of_the_peers_before(bound)
    assert bound.rebuilt(bound.seeds[BETWEEN]) and not bound.reads(BETWEEN)
    with pytest.raises(Inconsistent, match="a key twice"):
        copy_the_keys_of_the_peers_before(real)
    assert real.cohort.asked_for_update == []


# ---- keys of low order

# The u-coordinates of points of order 4 and 2 (RFC 7748, section 6.1: whoever multiplies them gets zero).
LOW_ORDER = {"c0": (1).to_bytes(32, "little"), "c2": bytes(32)}


class Unchecked(AgreementKey):
    """X25519 without the check that RFC 7748 leaves to the protocol."""

    def agree(self, peer: bytes) -> bytes:
        return bytes(32) if peer in LOW_ORDER.values() else super().agree(peer)


class TakesLowOrder(AggregationClient):
    def _advertise(self) -> tuple[State, Envelope]:
        state, own = super()._advertise()
        assert isinstance(state, Advertising)
        return replace(state, mask=Unchecked(state.mask.secret)), own


class Nothing(AgreementKey):
    """What anybody at all knows of the secret behind a key of low order."""

    def agree(self, peer: bytes) -> bytes:
        return bytes(32)


def have_peers_advertise_low_order(server: Adversary) -> None:
    """The peers need not know the server, nor talk to it again: they have said all that it needs."""
    server.advertise_keys([VICTIM])
    for name, key in LOW_ORDER.items():
        say_instead(server, name, mask_key=key)
        server.known[name] = Nothing(bytes(32))
    server.share_keys()
    server.mask_input()
    server.sign(names(3))
    server.open(names(3))


@pytest.mark.attack("public keys of low order")
def test_keys_of_low_order_are_refused_before_the_update_is_asked_for() -> None:
    weak, real = Adversary(cohort_of(TakesLowOrder, 3)), Adversary(cohort_of(AggregationClient, 3))
    have_peers_advertise_low_order(weak)
    assert weak.reads(VICTIM)
    with pytest.raises(Forged, match="low order"):
        have_peers_advertise_low_order(real)
    assert real.cohort.asked_for_update == []
