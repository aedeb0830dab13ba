"""Keys and commitments that client and server derive alike from a session's secrets."""

from __future__ import annotations

from protocols.aggregation.session import Terms
from protocols.base import ClientId
from protocols.masking import Mask, mask_key
from protocols.primitives import AgreementKey, derive, digest


def pair_mask(terms: Terms, own: AgreementKey, me: ClientId, peer: ClientId, peer_key: bytes) -> Mask:
    """The mask that ``me`` and ``peer`` share: added by the first by name, taken away by the second."""
    low, high = sorted((me.encode(), peer.encode()))
    key = mask_key(own.agree(peer_key), "pair mask", terms.session, terms.layout.ring, terms.layout.length, (low, high))
    return Mask(key, 1 if me.encode() == low else -1)


def self_mask_key(terms: Terms, name: ClientId, seed: bytes) -> bytes:
    """The key of the mask that hides a client's input while its pairwise masks can be rebuilt."""
    return mask_key(
        seed, "self mask", terms.session, terms.layout.ring, terms.layout.length, (name.encode(), name.encode())
    )


def commitment(secret: bytes) -> bytes:
    """A commitment to a share or seed."""
    # Hiding without extra randomness: what is committed to has at least 256 bits of entropy.
    return digest("commitment", secret)


def share_key(terms: Terms, secret: bytes, keys: bytes, sender: ClientId, receiver: ClientId) -> bytes:
    """The key that seals ``sender``'s shares to ``receiver``.

    One key per direction and session, so the one message under it may have a fixed nonce.
    """
    return derive(secret, "share", terms.session, keys, sender.encode(), receiver.encode())
