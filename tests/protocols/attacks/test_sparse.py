"""Attacks on the sparse graph: who a client's neighbours are, and whether the survivors hang together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import SharesRequest
from protocols.aggregation.session import Step
from protocols.base import ClientId
from protocols.degree import Sparse
from protocols.errors import Inconsistent
from protocols.graph import CohortRules, Graph
from tests.protocols.attacks.adversary import VICTIM, Adversary, cohort_of
from tests.protocols.attacks.puppets import Puppet, enclose
from tests.protocols.attacks.weak import TakesKeyList
from tests.protocols.cohort import identity

# The smallest cohort of a sparse graph. Few bits of security keep the neighbourhoods small, and so the tests fast; none
# of these attacks is a matter of luck but for where the colluders of the last stand.
COUNT, DEGREE, THRESHOLD, COLLUDERS = 101, 12, 10, 13
RULES = CohortRules(sparse=Sparse(corrupt=0.12, dropout=0.01, sigma=10, eta=8))


def large(client: type[AggregationClient]) -> Adversary:
    server = Adversary(cohort_of(client, COUNT, rules=RULES))
    server.advertise_keys()
    graph = server.graph
    assert (graph.degree, graph.threshold, graph.least) == (DEGREE, THRESHOLD, COUNT - 2)
    assert RULES.sparse is not None and RULES.sparse.corrupted(COUNT) == COLLUDERS
    return server


def corrupt(server: Adversary, names: Sequence[ClientId]) -> list[Puppet]:
    """Some of the cohort belong to the server: it speaks for them, with their identities."""
    puppets = [Puppet(name, identity(name)) for name in names]
    for puppet in puppets:
        server.heard[Step.KEYS][puppet.name] = puppet.advertise(server.terms)
    return puppets


def strangers_to(server: Adversary, count: int) -> list[ClientId]:
    """So many who are not the victim's neighbours (the graph before they said their keys is as good as any)."""
    near = {VICTIM, *server.graph.neighbours(VICTIM)}
    return [name for name in server.members if name not in near][:count]


# ---- neighbours


class TakesNeighbours(TakesKeyList):
    """Masks with whomever the server shows it, and deals its shares to them."""

    def _neighbourhood(self, graph: Graph, shown: tuple[ClientId, ...]) -> Graph:
        return replace(graph, _known={self._name: shown}, _places={})


def choose_the_neighbours(server: Adversary) -> None:
    """Of 13 colluders that the graph is made for, 12 are all the neighbours of the victim."""
    puppets = corrupt(server, strangers_to(server, DEGREE))
    enclose(server, puppets, [puppet.name for puppet in puppets])


@pytest.mark.attack("a graph chosen by the server")
def test_a_clients_neighbours_follow_from_the_key_list() -> None:
    weak, real = large(TakesNeighbours), large(AggregationClient)
    choose_the_neighbours(weak)
    assert weak.reads(VICTIM)
    with pytest.raises(Inconsistent, match="not those of this client's neighbours"):
        choose_the_neighbours(real)
    assert real.cohort.asked_for_update == []


class TakesMoreNeighbours(TakesKeyList):
    """Asks that its neighbours are among those shown, not that nobody else is."""

    def _neighbourhood(self, graph: Graph, shown: tuple[ClientId, ...]) -> Graph:
        if not set(graph.neighbours(self._name)) <= set(shown):
            raise Inconsistent("a neighbour is missing")
        return replace(graph, _known={self._name: shown}, _places={})


def invent_neighbours(server: Adversary) -> None:
    """Beside its true neighbours the victim is shown colluders, as many as can open what it deals to them."""
    puppets = corrupt(server, strangers_to(server, THRESHOLD))
    invented = {puppet.name for puppet in puppets}
    near = set(server.graph.neighbours(VICTIM))
    server.share_keys(sorted(near - invented))
    enclose(server, puppets, sorted(near | invented))


@pytest.mark.attack("invented neighbours beside the true ones")
def test_nobody_but_a_clients_neighbours_is_dealt_shares() -> None:
    weak, real = large(TakesMoreNeighbours), large(AggregationClient)
    invent_neighbours(weak)
    assert weak.reads(VICTIM)
    with pytest.raises(Inconsistent, match="not those of this client's neighbours"):
        invent_neighbours(real)
    assert real.cohort.asked_for_update == []


# ---- survivors


class TakesFewSurvivors(AggregationClient):
    """Opens for any survivor set that enough of its own neighbours signed, down to the smallest cohort."""

    def _graph(self, request: SharesRequest) -> tuple[Graph, bytes]:
        graph, keys = super()._graph(request)
        return replace(graph, least=self._terms.rules.minimum), keys


def cut_the_ring(server: Adversary) -> tuple[ClientId, ...]:
    """Cut three clients off the ring by two gaps of six: four colluders each, and two who are said to have dropped.

    The colluders' shares make up for those that are missing at the edges. Returns the three.
    """
    ring = server.graph.ring
    gaps, cut, rest = (ring[:6], ring[9:15]), ring[6:9], ring[15:]
    colluders = (*gaps[0][2:], *gaps[1][:4])
    server.corrupted = colluders
    server.share_keys()
    server.mask_input()
    survivors = tuple(sorted((*cut, *rest, *colluders)))
    for name in colluders:
        server.sign_as(name, survivors, server.members)
    server.sign(survivors, (*cut, *rest))
    server.open(survivors, (*cut, *rest))
    return cut


@pytest.mark.attack("a survivor set below (1 - delta) n that cuts the graph")
def test_survivors_are_never_so_few_that_their_graph_may_fall_apart() -> None:
    """Of 101 clients 13 may collude and 2 may drop: a sum hides each among 86 honest ones. Here it is 3."""
    weak, real = large(TakesFewSurvivors), large(AggregationClient)
    cut = cut_the_ring(weak)
    assert len(cut) == 3 and weak.reads(*cut)
    with pytest.raises(Inconsistent, match="a survivor set of 97 is below the 99"):
        cut_the_ring(real)
    assert not real.reads(*real.graph.ring[6:9])
