"""Attacks that give the victim something else than the others: model, bound or length (Pasquini et al., CCS 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import SharePair
from protocols.aggregation.session import Context, Terms
from protocols.aggregation.states import Contribution, Sharing
from protocols.base import ClientId, Random
from protocols.encoding import Encoded, Encoding, Floats, Integers, Layout
from protocols.encoding.fixedpoint import FixedPoint
from protocols.errors import Inconsistent
from protocols.graph import CohortRules
from protocols.masking import Mask
from protocols.primitives import Identity
from protocols.ring import RingVector
from tests.protocols.attacks.adversary import (
    DIMENSION,
    GRID,
    VICTIM,
    Adversary,
    cohort_of,
    encoded,
    grid_updates,
    without,
)
from tests.protocols.cohort import BOUND, Cohort, identity, names, roster

OTHERS = without(VICTIM)


def whole_round(server: Adversary) -> RingVector:
    """Everything that an honest server does; the sum over all, as far as the masks come off."""
    server.up_to_inputs()
    server.sign(names(5))
    server.open(names(5))
    return server.stripped(*names(5))


# ---- another model


class AnyModel(AggregationClient):
    """Its session id does not say which model it was given."""

    def __init__(
        self, name: ClientId, own: Identity, terms: Terms, encoding: Encoding, contribution: Contribution
    ) -> None:
        super().__init__(name, own, model_blind(terms), encoding, contribution)
        self._true_terms = terms


def model_blind(terms: Terms) -> Terms:
    return replace(terms, context=msgspec.structs.replace(terms.context, model=b""))


class MasksForItsModel(AnyModel):
    """Checks as little, but its masks are bound to its own model."""

    def _masks(self, state: Sharing, held: Mapping[ClientId, SharePair]) -> list[Mask]:
        blind, self._terms = self._terms, self._true_terms
        try:
            return super()._masks(state, held)
        finally:
            self._terms = blind


def silence_the_others(client: type[AggregationClient]) -> Cohort:
    """All but the victim get a model whose units are dead, and so have updates of zero: the sum is the victim's."""
    updates = {name: update * (name == VICTIM) for name, update in grid_updates(5).items()}
    return cohort_of(client, inputs=updates, models=dict.fromkeys(OTHERS, b"a model of dead units"))


@pytest.mark.attack("different models to different clients (model inconsistency)")
def test_clients_that_were_given_different_models_do_not_add_up() -> None:
    weak = silence_the_others(AnyModel)
    assert np.array_equal(whole_round(Adversary(weak, model_blind(weak.terms))), encoded(weak, VICTIM))
    real = silence_the_others(AggregationClient)
    with pytest.raises(Inconsistent, match="another session"):
        whole_round(Adversary(real))
    assert real.asked_for_update == []


@pytest.mark.attack("different models to different clients that do not check")
def test_masks_of_different_models_do_not_cancel() -> None:
    """Of 6 coordinates of 32 random bits, one is right by chance once in 7e8 tries."""
    unchecked = silence_the_others(MasksForItsModel)
    server = Adversary(unchecked, model_blind(unchecked.terms))
    whole_round(server)
    for client in unchecked.clients.values():  # the server knows whom it gave which model
        client._terms = client._true_terms  # type: ignore[attr-defined]
    assert all(server.rebuilt(server.seeds[name]) for name in names(5))
    assert not (server.stripped(*names(5)) == encoded(unchecked, VICTIM)).any()


# ---- another bound, another length


def cohort_with(encodings: Mapping[ClientId, Encoding], inputs: Mapping[ClientId, NDArray[np.float64]]) -> Cohort:
    """Clients that were each given an encoding of their own, and else the same."""
    members, clients = roster(5), {}
    for name, coder in encodings.items():
        context = Context("run", 1, 1, b"plan", members.digest, b"model")
        terms = Terms(context, members, CohortRules(), coder.layout, True)
        clients[name] = AggregationClient(name, identity(name), terms, coder, Contribution(partial(inputs.get, name)))  # type: ignore[arg-type]
    weights = dict.fromkeys(clients, 1.0)
    return Cohort("secagg", clients[VICTIM]._terms, encodings[VICTIM], inputs, weights, clients, [])


class AnyBound(FixedPoint, frozen=True):
    """Fixed point whose layout does not name the bound: vectors of one ring and length, whatever they count in."""

    @property
    def layout(self) -> Layout:
        return replace(super().layout, digest=b"fixed point")


def give_the_others_a_huge_bound(coder: type[FixedPoint]) -> Adversary:
    """With 2**26 times the bound, steps are 2**26 times as long: the others' updates count for next to nothing."""
    encodings = {name: coder(DIMENSION, BOUND * 2**26, 5) for name in OTHERS}
    encodings[VICTIM] = coder(DIMENSION, BOUND, 5)
    return Adversary(cohort_with(encodings, grid_updates(5)))


@pytest.mark.attack("different bounds to different clients")
def test_clients_that_were_given_different_bounds_do_not_add_up() -> None:
    weak = give_the_others_a_huge_bound(AnyBound)
    total = whole_round(weak).view(np.int32)
    unit = GRID * weak.cohort.encoding.scale  # type: ignore[attr-defined]
    near = (np.round(total / unit) * unit).astype(np.int32)
    assert np.abs(total - near).max() <= 4 * (BOUND + 1)
    assert np.array_equal(near.view(np.uint32), encoded(weak.cohort, VICTIM))
    with pytest.raises(Inconsistent, match="another session"):
        whole_round(give_the_others_a_huge_bound(FixedPoint))


class Padded(FixedPoint, frozen=True):
    """Fixed point filled up with zeros to a length that all have in common, as ciphertexts are to whole slots."""

    @property
    def layout(self) -> Layout:
        return replace(super().layout, length=DIMENSION, digest=b"padded")

    def encode(
        self,
        update: Floats,
        weight: float,
        session: bytes,
        sender: ClientId,
        random: Random,
        noise: Integers | None = None,
    ) -> Encoded:
        short = super().encode(update, weight, session, sender, random, noise)
        return Encoded(np.pad(short.vector, (0, DIMENSION - self.dimension)), short.seed)


def give_the_others_one_parameter(coder: type[FixedPoint]) -> Adversary:
    """The others' model has one parameter, the victim's six: of five of them there is only one update."""
    encodings = {name: coder(1, BOUND, 5) for name in OTHERS} | {VICTIM: coder(DIMENSION, BOUND, 5)}
    inputs = {name: update if name == VICTIM else update[:1] for name, update in grid_updates(5).items()}
    return Adversary(cohort_with(encodings, inputs))


@pytest.mark.attack("different lengths to different clients")
def test_clients_that_were_given_different_lengths_do_not_add_up() -> None:
    weak = give_the_others_one_parameter(Padded)
    assert np.array_equal(whole_round(weak)[1:], encoded(weak.cohort, VICTIM)[1:])
    with pytest.raises(Inconsistent, match="another session"):
        whole_round(give_the_others_one_parameter(FixedPoint))
