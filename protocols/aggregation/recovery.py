"""Taking the masks off a sum: rebuild self seeds and dropped mask keys from shares, verify them, subtract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from protocols import shamir
from protocols.aggregation.messages import Advertised
from protocols.aggregation.secrets import commitment, pair_mask, self_mask_key
from protocols.aggregation.session import Terms
from protocols.base import ClientId
from protocols.errors import Forged, MalformedMessage
from protocols.masking import Mask, Work, apply_masks
from protocols.primitives import AgreementKey, equal
from protocols.ring import RingVector

Shares = Mapping[ClientId, Mapping[ClientId, bytes]]


@dataclass(frozen=True)
class Recovery:
    """One survivor set. ``seed_commitments`` has an entry for each survivor; ``shared`` is U2."""

    terms: Terms
    members: Mapping[ClientId, Advertised]
    seed_commitments: Mapping[ClientId, bytes]
    shared: Sequence[ClientId]
    work: Work

    def remove(self, total: RingVector, shares: Shares, threshold: int) -> None:
        """Take every mask off ``total``, in place. Raises ``Forged`` with the dealer to blame if a secret is wrong."""
        points = self.terms.roster.points(sorted(shares)[:threshold])
        lagrange = shamir.coefficients(points.values())

        def rebuild(dealer: ClientId) -> bytes:
            held = {point: shares[holder][dealer] for holder, point in points.items()}
            try:
                return shamir.join(held, lagrange)
            except MalformedMessage as error:
                raise Forged(f"the shares that {dealer} dealt do not belong to one secret", blamed=dealer) from error

        masks = [mask for name in self.shared for mask in self._masks_of(name, rebuild(name))]
        apply_masks(total, self.terms.layout.ring, masks, self.work)

    def _masks_of(self, name: ClientId, secret: bytes) -> Iterator[Mask]:
        if name in self.seed_commitments:
            yield self._self_mask(name, secret)
        else:
            yield from self._pair_masks(name, secret)

    def _self_mask(self, name: ClientId, seed: bytes) -> Mask:
        if not equal(commitment(seed), self.seed_commitments[name]):
            raise Forged(f"the seed rebuilt for {name} is not the one it committed to", blamed=name)
        return Mask(self_mask_key(self.terms, name, seed), -1)

    def _pair_masks(self, name: ClientId, secret: bytes) -> Iterator[Mask]:
        """What a dropped client would have added for each survivor: what their masks lack to cancel."""
        key = AgreementKey(secret)
        if not equal(key.public, self.members[name].mask_key):
            raise Forged(f"the mask key rebuilt for {name} is not the one it advertised", blamed=name)
        for survivor in self.seed_commitments:
            yield pair_mask(self.terms, key, name, survivor, self.members[survivor].mask_key)
