"""Attacks with sealed shares that are relayed to another client, or back to their dealer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import pytest

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import Advertised, Complaint, Dealt, Extract
from protocols.aggregation.secrets import commitment
from protocols.aggregation.session import Step
from protocols.aggregation.verify import read
from protocols.base import ClientId
from protocols.errors import Inconsistent, SessionSpent
from protocols.primitives import AgreementKey, derive
from tests.protocols.attacks.adversary import VICTIM, Adversary, cohort_of, without
from tests.protocols.attacks.weak import SealsLoosely, TakesEqualKeys, TakesKeyList


class SealsAnonymously(SealsLoosely, TakesKeyList):
    """Binds what it seals to the session and to the two keys; who has them, it does not ask."""

    def _sealing_key(self, secret: bytes, sender: ClientId, receiver: ClientId) -> bytes:
        return derive(secret, "share", self._terms.session)

    def _check_distinct(self, advertised: Mapping[ClientId, Advertised]) -> None:
        pass


COPYIST = "c4"


def repeat_the_victims_dealing(server: Adversary) -> None:
    """A colluder advertises the victim's own share key and signs what the victim dealt as its own dealing.

    Then all hold the victim's shares twice, under two names, and open one half for the name that survived and the
    other for the name that dropped. What the victim dealt to the colluder comes back to it.
    """
    server.advertise_keys(without(COPYIST))
    colluder = server.cohort.clients[COPYIST]
    theirs = msgspec.msgpack.decode(server.heard[Step.KEYS][VICTIM].parts[0], type=Advertised)
    body = Advertised(AgreementKey(bytes(range(32))).public, theirs.share_key, b"")
    server.heard[Step.KEYS][COPYIST] = colluder._envelope(Step.KEYS, b"", [msgspec.msgpack.encode(body)])
    honest = without(COPYIST)
    server.share_keys(honest)
    dealt = server.heard[Step.SHARES][VICTIM]
    parts = list(dealt.parts)
    for peer in honest:
        meant_for = COPYIST if peer == VICTIM else peer
        parts[server.graph.place(COPYIST, peer)] = dealt.parts[server.graph.place(VICTIM, meant_for)]
    keys = dealt.signed.authenticate(server.terms.roster).keys
    server.heard[Step.SHARES][COPYIST] = colluder._envelope(Step.SHARES, keys, parts)
    server.mask_input(honest)
    server.sign(honest)
    server.open(honest)
    points = server.terms.roster.points
    server.keys[VICTIM] = dict(server.keys[COPYIST])
    server.keys[VICTIM][points[COPYIST]] = server.keys[VICTIM].pop(points[VICTIM])


@pytest.mark.attack("sealed shares replayed between pairs and directions")
def test_what_is_sealed_to_one_client_opens_for_no_other_name() -> None:
    weak, real = Adversary(cohort_of(SealsAnonymously)), Adversary(cohort_of(AggregationClient))
    repeat_the_victims_dealing(weak)
    assert weak.reads(VICTIM)
    with pytest.raises(Inconsistent, match="a key twice"):
        repeat_the_victims_dealing(real)
    assert real.cohort.asked_for_update == []


def test_a_dealing_that_repeats_anothers_is_complained_about_even_under_equal_keys() -> None:
    bound = Adversary(cohort_of(TakesEqualKeys))
    with pytest.raises(SessionSpent):
        repeat_the_victims_dealing(bound)
    complaints = [read(reply.parts, Complaint).dealers for reply in bound.heard[Step.COMPLAINT].values()]
    assert complaints == [(COPYIST,)] * 4
    assert bound.cohort.asked_for_update == []


class SealsForPairs(SealsLoosely):
    """Binds what it seals to the two clients, but not to who of them dealt."""

    def _sealing_key(self, secret: bytes, sender: ClientId, receiver: ClientId) -> bytes:
        return derive(secret, "share", self._terms.session, *sorted((sender.encode(), receiver.encode())))


MIRROR = "c4"


@dataclass
class Mirrors(Adversary):
    """Gives the victim its own dealing back as that of a peer."""

    def relayed(self, dealer: ClientId, receiver: ClientId) -> Extract:
        mirrored = (dealer, receiver) == (MIRROR, VICTIM)
        return super().relayed(receiver, dealer) if mirrored else super().relayed(dealer, receiver)

    @property
    def share_of_both(self) -> bool:
        """Whether the victim, which survived, has opened a share of its own mask key."""
        dealt = read([self.heard[Step.SHARES][VICTIM].parts[self.graph.place(VICTIM, MIRROR)]], Dealt)
        opened = self.keys[MIRROR].get(self.terms.roster.points[VICTIM], b"")
        return commitment(opened) == dealt.key_commitment


def mirror_the_victims_dealing(server: Adversary) -> None:
    """The peer is said to have dropped, so that the victim opens "the peer's" mask key: its own."""
    server.up_to_inputs()
    server.sign(without(MIRROR))
    server.open(without(MIRROR))


@pytest.mark.attack("sealed shares sent back to their dealer")
def test_what_a_client_dealt_does_not_come_back_to_it() -> None:
    """Each peer that drops gives the server one share of the second half; all that may drop, one too few to open it."""
    weak, real = Mirrors(cohort_of(SealsForPairs)), Mirrors(cohort_of(AggregationClient))
    mirror_the_victims_dealing(weak)
    assert weak.share_of_both and weak.rebuilt(weak.seeds[VICTIM])
    with pytest.raises(Inconsistent, match="not for this client"):
        mirror_the_victims_dealing(real)
    assert not real.share_of_both and VICTIM not in real.cohort.asked_for_update
