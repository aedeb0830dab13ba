"""Writes the test vectors: ``python -m tests.vectors.generate``. Every random byte is pinned; bytes are in hex.

A change of an existing vector is a change of the protocol (docs/secagg.md, section 13, and docs/ckks.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from protocols import merkle, shamir
from protocols.aggregation.marks import mark
from protocols.aggregation.messages import key_list_digest
from protocols.aggregation.secrets import commitment
from protocols.degree import Sparse
from protocols.encoding.fixedpoint import FixedPoint
from protocols.encoding.rlwe import PRIME
from protocols.graph import CohortRules
from protocols.masking import CHUNK_BYTES, expand
from protocols.primitives import AgreementKey, Identity, derive, digest, seal
from protocols.ring import Ring
from tests.vectors import ciphertexts, faults, refusals, strategy, transcript
from tests.vectors.session import Json, Pinned

FOLDER = Path(__file__).parent
SECRET = bytes(range(32))

# How many elements of a keystream are shown: its first, and on either side of its first chunk's border.
EXCERPT = 4
TREE_SIZES = (0, 1, 2, 3, 5, 8, 13)
COHORT_SIZES = (101, 120, 200, 500, 1000, 10000)
ASSUMPTIONS = (Sparse(), Sparse(0.1, 0.1, 40, 20), Sparse(0.05, 0.05, 40, 20))
# Just above a power of two, about half of all candidates are rejected.
HALF_REJECTED = (1 << 53) + 5


def primitives() -> Json:
    parts = [b"", b"a", b"ab", bytes(300)]
    digests = [("label", parts[:count]) for count in range(len(parts) + 1)]
    longest = merkle.CHUNK_BYTES
    peer = AgreementKey(SECRET[::-1]).public
    return {
        "digest": [{"label": label, "parts": hexed(of), "is": digest(label, *of).hex()} for label, of in digests],
        "derive": [derived("share", parts[1:3], length) for length in (16, 32)],
        "commitment": {"of": SECRET.hex(), "is": commitment(SECRET).hex()},
        "seal": {
            "key": SECRET.hex(),
            "plaintext": b"plaintext".hex(),
            "associated": b"associated".hex(),
            "is": seal(SECRET, b"plaintext", b"associated").hex(),
        },
        "signature": {
            "secret": SECRET.hex(),
            "public": Identity(SECRET).public.hex(),
            "of": b"message".hex(),
            "is": Identity(SECRET).sign(b"message").hex(),
        },
        "agreement": {
            "secret": SECRET.hex(),
            "public": AgreementKey(SECRET).public.hex(),
            "peer": peer.hex(),
            "is": AgreementKey(SECRET).agree(peer).hex(),
        },
        "marks": [marked(4, [0, 1, 3]), marked(8, []), marked(9, [0, 8]), marked(20, list(range(20)))],
        "trees": [tree(leaves) for leaves in TREE_SIZES],
        "long parts": [long_part(size) for size in (longest, longest + 1, 3 * longest)],
    }


def derived(label: str, context: list[bytes], length: int) -> Json:
    key = derive(SECRET, label, *context, length=length)
    return {"secret": SECRET.hex(), "label": label, "context": hexed(context), "length": length, "is": key.hex()}


def marked(members: int, chosen: list[int]) -> Json:
    names = [str(i) for i in range(members)]
    return {"members": members, "chosen": chosen, "is": mark(names, [names[i] for i in chosen]).hex()}


def tree(leaves: int) -> Json:
    """Part i is i bytes of value i."""
    grown = merkle.tree_of([bytes([i]) * i for i in range(leaves)])
    return {"parts": leaves, "root": grown.root.hex(), "paths": hexed([grown.path(i) for i in range(leaves)])}


def long_part(size: int) -> Json:
    """Byte i is i mod 251."""
    return {"bytes": size, "leaf": merkle.leaf((bytes(range(251)) * (size // 251 + 1))[:size]).hex()}


def keystreams() -> list[Json]:
    rings = [Ring(1 << 16), Ring(1 << 24), Ring(1 << 32), Ring(PRIME), Ring(HALF_REJECTED)]
    return [keystream(ring, length) for ring in rings for length in (EXCERPT, CHUNK_BYTES // ring.dtype.itemsize + 3)]


def keystream(ring: Ring, length: int) -> Json:
    """The first elements, those around the first chunk's border, and the hash of all of them, packed."""
    key = digest("keystream")[:16]
    vector = expand(ring, key, length)
    ring.reduce(vector)
    border = max(length - 3 - EXCERPT, 0)
    return {
        "key": key.hex(),
        "modulus": ring.modulus,
        "length": length,
        "first": vector[:EXCERPT].tolist(),
        "from": border,
        "then": vector[border:].tolist(),
        "sha256 of packed": hashlib.sha256(ring.pack(vector)).hexdigest(),
    }


def shares() -> list[Json]:
    return [
        shared(secret, threshold, points)
        for secret in (SECRET, bytes(32), b"\xff" * 32)
        for threshold, points in ((1, [1]), (2, [1, 2, 3]), (3, [1, 2, 4, 1000]))
    ]


def shared(secret: bytes, threshold: int, points: list[int]) -> Json:
    random = Pinned("shares")
    made = shamir.split(secret, threshold, points, random)
    return {
        "secret": secret.hex(),
        "threshold": threshold,
        "draws": hexed(random.draws),
        "shares": {str(x): share.hex() for x, share in made.items()},
    }


def graphs() -> Json:
    members = tuple(sorted(f"client {i}" for i in range(120)))
    entries = b"".join(digest("key list entry", name.encode()) for name in members)
    keys = key_list_digest(members, entries)
    graph = CohortRules().graph(members, keys)
    return {
        "list": {
            "members": members,
            "entries are": 'digest("key list entry", name)',
            "key list digest": keys.hex(),
            "degree": graph.degree,
            "ring": graph.ring,
            "neighbours": {name: graph.neighbours(name) for name in ("client 0", "client 77", graph.ring[0])},
        },
        "cohorts": [cohort(CohortRules(sparse=sparse), n) for sparse in ASSUMPTIONS for n in COHORT_SIZES]
        + [cohort(CohortRules(3 * c + 1, colluders=c), n) for c, n in ((3, 150), (10, 200), (30, 1000))]
        + [cohort(CohortRules(minimum, t, c), n) for minimum, t, c, n in COMPLETE],
    }


# minimum, threshold, colluders, n
COMPLETE = [(3, None, 0, n) for n in (3, 4, 5, 10, 100)] + [(4, None, 1, 4), (31, None, 10, 40), (16, 90, 5, 120)]


def cohort(rules: CohortRules, n: int) -> Json:
    s = rules.sparse
    return {
        "n": n,
        "minimum": rules.minimum,
        "threshold": rules.threshold,
        "colluders": rules.colluders,
        "sparse": None if s is None else [s.corrupt, s.dropout, s.sigma, s.eta],
        "degree": rules.degree_for(n),
        "t": rules.threshold_for(n),
        "least": rules.least(n),
        "quorum": rules.quorum(n),
    }


def fixed_points() -> list[Json]:
    coders = [FixedPoint(8, bound, clients, bits) for bits in (16, 24, 32) for bound, clients in ((1.0, 3), (4.0, 100))]
    return [fixed_point(coder) for coder in coders]


def fixed_point(coder: FixedPoint) -> Json:
    random = Pinned("coins")
    update = [0.0, 0.1, -0.1, coder.bound, -coder.bound, 3 * coder.bound, -3 * coder.bound, 1e-9]
    encoded = coder.encode(np.array(update), 0.75, b"", "", random).vector
    total = [0, 1, coder.layout.ring.modulus - 1, coder.layout.ring.modulus // 2, coder.layout.ring.modulus // 2 - 1]
    return {
        "bits": coder.bits,
        "bound": coder.bound,
        "clients": coder.clients,
        "scale": coder.scale,
        "coins key": hexed(random.draws),
        "update": update,
        "weight": 0.75,
        "encoded": encoded.tolist(),
        "packed": coder.layout.ring.pack(encoded).hex(),
        "total": total,
        "decoded": coder.decode(np.array(total, coder.layout.ring.dtype), []).tolist(),
    }


def hexed(parts: list[bytes]) -> list[str]:
    return [part.hex() for part in parts]


FILES: dict[str, Callable[[], object]] = {
    "primitives": primitives,
    "keystream": keystreams,
    "shamir": shares,
    "graph": graphs,
    "fixedpoint": fixed_points,
    "session": transcript.session,
    "refused": refusals.refused,
    "faults": faults.faulty,
    "ckks": ciphertexts.ciphertexts,
    "strategy": strategy.steps,
}


def written(vectors: object) -> str:
    """The text of a file of vectors."""
    return json.dumps(vectors, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    for name, make in FILES.items():
        (FOLDER / f"{name}.json").write_text(written(make()), encoding="utf-8")


if __name__ == "__main__":
    main()
