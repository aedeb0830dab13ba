"""Attacks that make the crowd small: fewer clients, fewer shares to open a secret, fewer masks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.marks import marked
from protocols.aggregation.messages import Envelope, InputRequest, SharePair, SharesRequest, key_list_digest
from protocols.aggregation.states import Sharing
from protocols.base import ClientId
from protocols.errors import ConfigurationError, Inconsistent, MalformedMessage
from protocols.graph import CohortRules, Graph
from protocols.wire import Message, decode, encode, kind
from tests.protocols.attacks.adversary import VICTIM, Adversary, cohort_of, without
from tests.protocols.attacks.puppets import Puppet, surround
from tests.protocols.cohort import identity, names


class NoMinimum(AggregationClient):
    """Computes its threshold from the key list, but takes part in any cohort of three."""

    def _graph(self, request: SharesRequest) -> tuple[Graph, bytes]:
        keys = key_list_digest(request.members, request.entries)
        return CohortRules().graph(request.members, keys), keys


# ---- too few clients


ANY = CohortRules()
SEVEN = CohortRules(minimum=7, colluders=2)
COLLUDERS = ("c5", "c6")


def play_a_round_with_colluders_alone(server: Adversary) -> None:
    """The victim and two colluders are the whole cohort: what hides it, all three know."""
    cohort = (VICTIM, *COLLUDERS)
    server.advertise_keys(cohort)
    server.share_keys()
    server.mask_input()
    server.sign(cohort)
    server.open(cohort)


def small(client: type[AggregationClient]) -> Adversary:
    cohort = cohort_of(client, 7, rules=SEVEN, others=dict.fromkeys(COLLUDERS, NoMinimum))
    return Adversary(cohort, rules=ANY, corrupted=COLLUDERS)


@pytest.mark.attack("a small cohort chosen by the server")
def test_a_cohort_below_the_owners_minimum_is_refused() -> None:
    weak, real = small(NoMinimum), small(AggregationClient)
    play_a_round_with_colluders_alone(weak)
    assert weak.reads(VICTIM)
    with pytest.raises(Inconsistent, match="a cohort of 3 is below the minimum of 7"):
        play_a_round_with_colluders_alone(real)
    assert real.cohort.asked_for_update == []


TEN = CohortRules(minimum=10, colluders=3)


def shrink_the_key_list(server: Adversary) -> None:
    """Of ten the victim is shown itself and three colluders: 3 of their 4 shares open all, where 7 of 10 would."""
    surround(server, [Puppet(name, identity(name)) for name in ("c7", "c8", "c9")])
    assert server.graph.threshold == 3


@pytest.mark.attack("a key list U1 that is shrunk for one client, and its threshold with it")
def test_a_threshold_cannot_be_lowered_by_a_shorter_key_list() -> None:
    weak, real = (Adversary(cohort_of(c, 10, rules=TEN), rules=ANY) for c in (NoMinimum, AggregationClient))
    shrink_the_key_list(weak)
    assert weak.reads(VICTIM)
    with pytest.raises(Inconsistent, match="a cohort of 4 is below the minimum of 10"):
        shrink_the_key_list(real)
    assert real.cohort.asked_for_update == []


# ---- too few masks


class MasksWithAnyFew(AggregationClient):
    """Masks with those who dealt to it, however few they are said to be."""

    def _receive_all(self, state: Sharing, request: InputRequest) -> tuple[dict[ClientId, SharePair], list[ClientId]]:
        shared = marked(state.cohort.graph.members, request.shared)
        dealers = [name for name in shared if name != self._name]
        pairs = zip(dealers, request.dealt, strict=True)
        return {dealer: self._receive(state, dealer, given.part) for dealer, given in pairs}, []


def say_that_only_a_colluder_dealt(server: Adversary) -> None:
    """The victim's U2 is itself and c4; the others' is everybody, and they open its self seed with all the rest."""
    server.advertise_keys()
    server.share_keys()
    others = ("c0", "c2", "c3", "c4")
    server.mask_input(others)
    server.mask_input([VICTIM], (VICTIM, "c4"))
    server.sign(names(5), others)
    server.open(names(5), others)


@pytest.mark.attack("a U2 that is shrunk to one colluder")
def test_a_client_does_not_mask_with_a_few() -> None:
    weak, real = (Adversary(cohort_of(c), corrupted=["c4"]) for c in (MasksWithAnyFew, AggregationClient))
    say_that_only_a_colluder_dealt(weak)
    assert weak.reads(VICTIM)
    with pytest.raises(Inconsistent, match="2 clients dealt shares, 4 are needed"):
        say_that_only_a_colluder_dealt(real)
    assert VICTIM not in real.cohort.asked_for_update


# ---- too few shares


class SharesRequestWithThreshold(Message, frozen=True):
    """A key list that says how many shares are to open a secret."""

    KIND: ClassVar[int] = SharesRequest.KIND
    members: tuple[ClientId, ...]
    entries: bytes
    advertised: tuple[Envelope, ...]
    threshold: int


class TakesThreshold(AggregationClient):
    """Takes the threshold with the key list, as a client does that knows no rules of its own."""

    def handle(self, request: bytes) -> bytes:
        if kind(request) == SharesRequest.KIND:
            given = decode(request, SharesRequestWithThreshold)
            self._given = given.threshold
            request = encode(SharesRequest(given.members, given.entries, given.advertised))
        return super().handle(request)

    def _graph(self, request: SharesRequest) -> tuple[Graph, bytes]:
        graph, keys = super()._graph(request)
        return replace(graph, threshold=self._given, least=self._given, quorum=self._given), keys


@dataclass
class LowThreshold(Adversary):
    """Asks for two of seven shares, with two colluders."""

    @property
    def graph(self) -> Graph:
        return replace(super().graph, threshold=2)

    def key_list(self, me: ClientId) -> Message:  # type: ignore[override]
        honest = super().key_list(me)
        return SharesRequestWithThreshold(honest.members, honest.entries, honest.advertised, 2)


@pytest.mark.attack("a low threshold chosen by the server")
def test_the_threshold_is_no_word_of_the_servers() -> None:
    """The colluders open the victim's shares between themselves: there are no exchanges 3 and 4."""
    weak, real = (
        LowThreshold(cohort_of(c, 7, rules=SEVEN), corrupted=COLLUDERS) for c in (TakesThreshold, AggregationClient)
    )
    weak.up_to_inputs()
    assert weak.reads(VICTIM)
    with pytest.raises(MalformedMessage):
        real.up_to_inputs()
    assert real.cohort.asked_for_update == []


class AnyThreshold(CohortRules, frozen=True):
    """Rules that do not ask whether t is more than half."""

    def _of_everybody(self, cohort: int) -> int:
        assert self.threshold is not None
        return self.threshold


def tell_the_halves_different_things(server: Adversary) -> None:
    halves = (VICTIM, "c0", "c2"), ("c3", "c4", "c5")
    server.up_to_inputs()
    for survivors, half in zip((names(6), without(VICTIM, 6)), halves, strict=True):
        server.sign(survivors, half)
        server.open(survivors, half)


@pytest.mark.attack("two halves of a cohort that can each reach the threshold")
def test_two_groups_of_clients_never_both_reach_the_threshold() -> None:
    """With 3 of 6 the real client itself is lost; such rules make no session, and from 4 of 6 on the attack fails."""
    weak = Adversary(cohort_of(AggregationClient, 6, rules=AnyThreshold(threshold=3)))
    tell_the_halves_different_things(weak)
    assert weak.reads(VICTIM)
    with pytest.raises(ConfigurationError, match="threshold 3 is too low for 6 clients"):
        cohort_of(AggregationClient, 6, rules=CohortRules(threshold=3))
    real = Adversary(cohort_of(AggregationClient, 6, rules=CohortRules(threshold=4)))
    with pytest.raises(Inconsistent, match="3 distinct clients signed"):
        tell_the_halves_different_things(real)
    assert not real.reads(VICTIM)
