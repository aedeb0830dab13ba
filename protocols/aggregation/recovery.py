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
from protocols.errors import BadDealers, Forged, Inconsistent, MalformedMessage
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

        Raises ``BadDealers`` with all whose secrets are wrong, ``Inconsistent`` if shares are missing.
        """
        masks = self._masks(self._secrets(shares))
        while batch := list(islice(masks, _BATCH)):
            apply_masks(total, self.terms.layout.ring, batch, self.work)

    def _secrets(self, shares: Shares) -> dict[ClientId, bytes]:
        """The seeds of survivors and the mask keys of those of the dropped with whom one of them masked."""
        secrets: dict[ClientId, bytes] = {}
        wrong: dict[ClientId, str] = {}
        coefficients: dict[tuple[int, ...], Mapping[int, int]] = {}
        for dealer, opened in shares.items():
            if dealer not in self.seed_commitments and not self._survivors_near(dealer):
                continue
            held = self._enough(dealer, opened)
            if (points := tuple(held)) not in coefficients:
                # On the complete graph the same holders open every secret; on a sparse one hardly ever: keep the last.
                coefficients = {points: shamir.coefficients(points)}
            try:
                secrets[dealer] = self._verified(dealer, shamir.join(held, coefficients[points]))
            except MalformedMessage:
                wrong[dealer] = f"the shares that {dealer} dealt do not belong to one secret"
            except Forged as error:
                wrong[dealer] = str(error)
        if wrong:
            raise BadDealers(wrong)
        return secrets

    def _verified(self, dealer: ClientId, secret: bytes) -> bytes:
        if dealer not in self.seed_commitments:
            if not equal(AgreementKey(secret).public, self.advertised[dealer].mask_key):
                raise Forged(f"the mask key rebuilt for {dealer} is not the one it advertised")
        elif not equal(commitment(secret), self.seed_commitments[dealer]):
            raise Forged(f"the seed rebuilt for {dealer} is not the one it committed to")
        return secret

    def _masks(self, secrets: Mapping[ClientId, bytes]) -> Iterator[Mask]:
        for dealer, secret in secrets.items():
            if dealer in self.seed_commitments:
                yield Mask(self_mask_key(self.terms, dealer, secret), -1)
                continue
            # What a dropped client would have added for each survivor: what their masks lack to cancel.
            key = AgreementKey(secret)
            for survivor in self._survivors_near(dealer):
                yield pair_mask(self.terms, key, dealer, survivor, self.advertised[survivor].mask_key)

    def _survivors_near(self, dealer: ClientId) -> list[ClientId]:
        return [name for name in self.graph.neighbours(dealer) if name in self.seed_commitments]

    def _enough(self, dealer: ClientId, opened: Mapping[ClientId, bytes]) -> dict[int, bytes]:
        if len(opened) < self.graph.threshold:
            raise Inconsistent(f"{len(opened)} shares of {dealer} were opened, {self.graph.threshold} are needed")
        points = self.terms.roster.points
        return {points[holder]: opened[holder] for holder in sorted(opened)[: self.graph.threshold]}
