"""Taking the masks off a sum: rebuild self seeds and dropped mask keys from shares, verify them, subtract.

Masks are made and taken away a batch at a time: what is held does not grow with the number of dropouts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from protocols import shamir
from protocols.aggregation.messages import Advertised
from protocols.aggregation.secrets import commitment, pair_mask, self_mask_key
from protocols.aggregation.session import Terms
from protocols.base import ClientId
from protocols.errors import Forged, Inconsistent, MalformedMessage
from protocols.graph import Graph
from protocols.masking import Mask, Work, apply_masks
from protocols.primitives import AgreementKey, equal
from protocols.ring import RingVector

# Of every dealer in U2, the shares that were opened, by holder.
Shares = Mapping[ClientId, Mapping[ClientId, bytes]]

# Each pass over the vector costs what a few masks cost.
_BATCH = 256


@dataclass(frozen=True)
class Recovery:
    """One survivor set. ``seed_commitments`` has an entry for each survivor."""

    terms: Terms
    graph: Graph
    advertised: Mapping[ClientId, Advertised]
    seed_commitments: Mapping[ClientId, bytes]
    work: Work

    def remove(self, total: RingVector, shares: Shares) -> None:
        """Take every mask off ``total``, in place.

        Raises ``Forged`` with the dealer to blame if a secret is wrong, ``Inconsistent`` if shares are missing.
        """
        masks = self._masks(shares)
        while batch := list(islice(masks, _BATCH)):
            apply_masks(total, self.terms.layout.ring, batch, self.work)

    def _masks(self, shares: Shares) -> Iterator[Mask]:
        coefficients: dict[tuple[int, ...], Mapping[int, int]] = {}
        for dealer, opened in shares.items():
            survivors = [name for name in self.graph.neighbours(dealer) if name in self.seed_commitments]
            if dealer not in self.seed_commitments and not survivors:
                continue  # it dropped, and nobody who is left masked with it
            held = self._enough(dealer, opened)
            lagrange = coefficients.get(points := tuple(held))
            if lagrange is None:
                # On the complete graph the same holders open every secret; on a sparse one hardly ever: keep the last.
                coefficients = {points: (lagrange := shamir.coefficients(points))}
            try:
                secret = shamir.join(held, lagrange)
            except MalformedMessage as error:
                raise Forged(f"the shares that {dealer} dealt do not belong to one secret", blamed=dealer) from error
            if dealer in self.seed_commitments:
                yield self._self_mask(dealer, secret)
            else:
                yield from self._pair_masks(dealer, secret, survivors)

    def _enough(self, dealer: ClientId, opened: Mapping[ClientId, bytes]) -> dict[int, bytes]:
        if len(opened) < self.graph.threshold:
            raise Inconsistent(f"{len(opened)} shares of {dealer} were opened, {self.graph.threshold} are needed")
        points = self.terms.roster.points
        return {points[holder]: opened[holder] for holder in sorted(opened)[: self.graph.threshold]}

    def _self_mask(self, name: ClientId, seed: bytes) -> Mask:
        if not equal(commitment(seed), self.seed_commitments[name]):
            raise Forged(f"the seed rebuilt for {name} is not the one it committed to", blamed=name)
        return Mask(self_mask_key(self.terms, name, seed), -1)

    def _pair_masks(self, name: ClientId, secret: bytes, survivors: list[ClientId]) -> Iterator[Mask]:
        """What a dropped client would have added for each survivor: what their masks lack to cancel."""
        key = AgreementKey(secret)
        if not equal(key.public, self.advertised[name].mask_key):
            raise Forged(f"the mask key rebuilt for {name} is not the one it advertised", blamed=name)
        for survivor in survivors:
            yield pair_mask(self.terms, key, name, survivor, self.advertised[survivor].mask_key)
