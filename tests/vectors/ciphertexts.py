"""A sum of three CKKS uploads with every random byte pinned, and sums that must not decrypt. Not a test.

The noise is pinned, too, which SEAL's cannot be: the ciphertexts are put together here, by docs/ckks.md, section 2.
"""

from __future__ import annotations

import numpy as np

from protocols.encoding import Upload
from protocols.encoding.ckks import CKKS, CKKSKey
from protocols.encoding.ntt import transform
from protocols.encoding.quantise import stochastic_round, toss
from protocols.encoding.rlwe import CKKSParameters, a_masks, multiply
from protocols.masking import apply_masks, expand
from protocols.ring import Ring, RingVector
from tests.vectors.session import Json, Pinned

SESSION = bytes(range(32))
PARAMETERS = CKKSParameters(5, 1.0, 4, 32)
UPDATES = {"a": [0.5, -0.25, 1.0, 0.0, 1e-3], "b": [2.0, -2.0, 0.125, 0.3, -1e-3], "é": [0.0, 0.0, -1.0, 0.7, 0.1]}
EXCERPT = (0, 1, 2047, 4095)


def key() -> CKKSKey:
    """A ternary secret from a keystream, and a tag key."""
    thirds = expand(Ring(3), bytes(16), PARAMETERS.degree).astype(np.int8)
    return CKKSKey(np.array([0, 1, -1], np.int8)[thirds], bytes(range(32)))


def uploads() -> list[Upload]:
    return [Upload(SESSION, name, bytes([place]) * 32) for place, name in enumerate(UPDATES, 1)]


def upload_sum() -> RingVector:
    """The sum of c0, reduced."""
    p = PARAMETERS
    total = p.ring.zeros(p.layout.length)
    for upload in uploads():
        message = np.zeros(p.degree, np.int64)
        message[: p.dimension] = p.spacing * wholes(upload.sender)
        noise = expand(Ring(43), upload.seed[:16], p.degree).astype(np.int64) - 21
        values = transform(p.degree, p.prime).forward(message + noise)
        hidden = multiply(a_of(upload), secret_values(), p.prime)
        total += values + (np.uint64(p.prime) - hidden)
        p.ring.reduce(total)
    return total


def wholes(name: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    coins = toss(PARAMETERS.dimension, Pinned(f"coins {name}"))
    return stochastic_round(np.array(UPDATES[name]), PARAMETERS.bound, PARAMETERS.levels, coins)


def a_of(upload: Upload) -> RingVector:
    vector = PARAMETERS.ring.zeros(PARAMETERS.layout.length)
    apply_masks(vector, PARAMETERS.ring, a_masks(PARAMETERS, [upload]))
    return vector


def secret_values() -> RingVector:
    return transform(PARAMETERS.degree, PARAMETERS.prime).forward(key().coefficients.astype(np.int64))


def ciphertexts() -> Json:
    p, total = PARAMETERS, upload_sum()
    return {
        "dimension": p.dimension,
        "bound": p.bound,
        "clients": p.clients,
        "bits": p.bits,
        "prime": p.prime,
        "levels": p.levels,
        "spacing": p.spacing,
        "layout digest": p.layout.digest.hex(),
        "key": key().to_bytes().hex(),
        "key id": key().key_id.hex(),
        "secret at": {str(place): int(secret_values()[place]) for place in EXCERPT},
        "session": SESSION.hex(),
        "uploads": [
            {
                "sender": upload.sender,
                "seed": upload.seed.hex(),
                "update": UPDATES[upload.sender],
                "coins key": Pinned(f"coins {upload.sender}")(16).hex(),
                "wholes": wholes(upload.sender).tolist(),
                "a key": a_masks(p, [upload])[0].key.hex(),
                "a at": {str(place): int(a_of(upload)[place]) for place in EXCERPT},
            }
            for upload in uploads()
        ],
        "sum": p.ring.pack(total).hex(),
        "decoded": CKKS(p, key()).decode(total, uploads()).tolist(),
        "parameters": [parameters(count, bits) for count in (3, 10, 100, 1000) for bits in (32, 40, 48, 54)],
        "no keys": [bad.hex() for bad in bad_keys()],
    }


def parameters(clients: int, bits: int) -> Json:
    try:
        given = CKKSParameters(1000, 8.0, clients, bits)
    except ValueError:
        return {"bound": 8.0, "clients": clients, "bits": bits, "refused": True}
    return {"bound": 8.0, "clients": clients, "bits": bits, "levels": given.levels, "spacing": given.spacing}


def bad_keys() -> list[bytes]:
    good = key().to_bytes()
    return [b"", good[:-1], good + b"\0", b"\xff" + good[1:], bytes(1024) + good[1024:], b"\x55" * 1024 + good[1024:]]
