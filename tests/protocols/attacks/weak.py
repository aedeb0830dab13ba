"""Clients that lack one defence each, where more than one attack needs the same gap. Not a test."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.marks import marked
from protocols.aggregation.messages import (
    Advertised,
    Dealt,
    Envelope,
    Opened,
    SharePair,
    SharesRequest,
    UnmaskRequest,
)
from protocols.aggregation.secrets import commitment
from protocols.aggregation.session import Step
from protocols.aggregation.states import Advertising, Cohort, Consenting, Sharing, Spent, State
from protocols.aggregation.verify import read
from protocols.base import ClientId
from protocols.errors import Inconsistent
from protocols.graph import Graph
from protocols.primitives import AgreementKey, open_sealed, seal


class TakesKeyList(AggregationClient):
    """The real check of a key list, taken apart: each piece can be left out by itself."""

    def _accept(self, state: Advertising, request: SharesRequest) -> Cohort:
        graph, keys = self._graph(request)
        advertised = {self._name: read(state.own.parts, Advertised)}
        for listed in request.advertised:
            sender = self._sender(listed)
            advertised[sender] = read(listed.parts, Advertised)
        graph = self._neighbourhood(graph, tuple(advertised)[1:])
        self._check_distinct(advertised)
        return Cohort(keys, graph, advertised)

    def _sender(self, listed: Envelope) -> ClientId:
        """Whose keys these are: signed, in this session."""
        sender = listed.signed.open(self._terms.roster, self._terms.session, Step.KEYS).sender
        listed.open(self._terms.roster, self._terms.session, Step.KEYS, sender)
        return sender

    def _neighbourhood(self, graph: Graph, shown: tuple[ClientId, ...]) -> Graph:
        """The graph, if those shown are the neighbours in it."""
        if shown != graph.neighbours(self._name):
            raise Inconsistent("the keys shown are not those of this client's neighbours, in order")
        return graph

    def _check_distinct(self, advertised: Mapping[ClientId, Advertised]) -> None:
        distinct = {key for member in advertised.values() for key in (member.mask_key, member.share_key)}
        if len(distinct) != 2 * len(advertised):
            raise Inconsistent("the key list has a key twice")


class TakesEqualKeys(TakesKeyList):
    """Does not compare the keys of the list; what it masks and seals is bound to names all the same."""

    def _check_distinct(self, advertised: Mapping[ClientId, Advertised]) -> None:
        pass


class SealsLoosely(AggregationClient):
    """Seals shares under keys of its own making, bound to nothing else."""

    def _sealing_key(self, secret: bytes, sender: ClientId, receiver: ClientId) -> bytes:
        raise NotImplementedError

    def _deal(self, key: AgreementKey, cohort: Cohort, receiver: ClientId, pair: SharePair) -> bytes:
        secret = key.agree(cohort.advertised[receiver].share_key)
        sealed = seal(self._sealing_key(secret, self._name, receiver), msgspec.msgpack.encode(pair), b"")
        return msgspec.msgpack.encode(Dealt(sealed, commitment(pair.seed), commitment(pair.key)))

    def _receive(self, state: Sharing, dealer: ClientId, part: bytes) -> SharePair:
        secret = state.share.agree(state.cohort.advertised[dealer].share_key)
        key = self._sealing_key(secret, dealer, self._name)
        return read([open_sealed(key, read([part], Dealt).sealed, b"")], SharePair)


class OpensUnproven(AggregationClient):
    """Opens its shares for the survivor set that it was told of, whoever else signed that set."""

    def _unmask(self, state: Consenting, request: UnmaskRequest) -> tuple[State, Envelope]:
        survivors = set(marked(state.cohort.graph.members, state.survivors))
        shares = [pair.seed if peer in survivors else pair.key for peer, pair in sorted(state.held.items())]
        return Spent(), self._envelope(Step.UNMASK, state.members, [msgspec.msgpack.encode(Opened(tuple(shares)))])
