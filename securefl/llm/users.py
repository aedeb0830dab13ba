"""One record a person: what a client holds of several people, grouped and bounded, for the unit `patient`.

Guarantee: with records made by :func:`grouped` and ``unit = "patient"`` in the job, DP-SGD clips and noises what a
whole person adds, however many sequences there are of one; its epsilon is for adding or removing a person at a client.
What a person has at other clients counts there: a job says whether people are at one client only
(``data.disjoint``). Of a person with more than ``most`` sequences the others are left out: contributions are bounded.

What is drawn is to be the same each time: an owner's ledger knows its records by a fingerprint of the rows, and rows
that are drawn anew are other records to it. Under a second data name they would have a second budget, unnoticed. So
draw by :func:`repeatable`, from one secret that the owner keeps; nothing here can tell where ``os.urandom`` was handed
in. A secret or a bound (``most``) that is changed has the same effect.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from numpy.typing import NDArray

from protocols.primitives import KEY_BYTES, derive
from securefl.data import Dataset
from securefl.errors import BadInput
from securefl.objective import IGNORED
from securefl.privacy.noise import Random

Tokens = NDArray[np.int64]

_DRAWN = "securefl sequences of a person"


@dataclass(frozen=True)
class Grouped:
    """``data``: one row a person, features (people, most, length), labels (people, most * length). ``left_out``: how
    many sequences were over the bound; it depends on the records, so it is for the owner only.
    """

    data: Dataset = field(repr=False)
    left_out: int


def repeatable(secret: bytes) -> Random:
    """What :func:`grouped` draws by: the same each time that it is made, so make it anew for each call.

    Guarantee: who lacks ``secret`` cannot tell it from chance; assumes that HKDF-SHA256 is pseudorandom. ``secret``: 32
    random bytes or more, drawn once and kept for as long as the records are used. Raises ``BadInput`` for fewer.
    """
    if len(secret) < KEY_BYTES:
        raise BadInput(f"a secret of {len(secret)} bytes: draw {KEY_BYTES} once, and keep them")
    calls = count()
    return lambda size: derive(secret, _DRAWN, next(calls).to_bytes(8), length=size)


def grouped(
    tokens: Tokens,
    labels: Tokens,
    people: Sequence[Hashable],
    most: int,
    pad: int,
    random: Random,
    size: int | None = None,
) -> Grouped:
    """Sequences (n, length) with the person that each is of, as one row a person of at most ``most`` sequences.

    Whose sequences are more has ``most`` of them drawn at the client from ``random``, :func:`repeatable` of the owner's
    secret; fewer are filled up with padding that counts nowhere. ``size``: the declared number of people. Raises
    ``BadInput`` for shapes that do not pair up.
    """
    if not (tokens.ndim == 2 and tokens.shape == labels.shape and len(tokens) == len(people) and most >= 1):
        raise BadInput(
            f"tokens {tokens.shape}, labels {labels.shape}, {len(people)} people, {most} sequences each: give one row "
            "and one person a sequence, of at least one sequence each"
        )
    rows: dict[Hashable, list[int]] = {}
    for row, person in enumerate(people):
        rows.setdefault(person, []).append(row)
    length = tokens.shape[1]
    features = np.full((len(rows), most, length), pad, np.int64)
    expected = np.full((len(rows), most, length), IGNORED, np.int64)
    for place, own in enumerate(rows.values()):
        kept = _drawn(own, most, random)
        features[place, : len(kept)] = tokens[kept]
        expected[place, : len(kept)] = labels[kept]
    data = Dataset(features, expected.reshape(len(rows), -1), size)
    return Grouped(data, sum(max(0, len(own) - most) for own in rows.values()))


def _drawn(rows: list[int], most: int, random: Random) -> list[int]:
    """``most`` of them, each set as likely as any other; all where there are no more."""
    keyed = sorted((random(16), row) for row in rows)
    return sorted(row for _, row in keyed[:most])
