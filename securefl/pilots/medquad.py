"""MedQuAD (Ben Abacha and Demner-Fushman, BMC Bioinformatics 2019): questions and answers of nine NIH institutes.

The file has one JSON object a line, made of the 11,274 XML files of the authors' repository: those pairs that have an
answer, white space collapsed. What its hash is of is the text, so it may be compressed in any way.
"""

from __future__ import annotations

import gzip
from functools import cache
from typing import Final

import msgspec
import numpy as np
from msgspec import Struct

from securefl.download import locate
from securefl.errors import BadInput

# Institutes in the order of the authors' folders, which begin with a number.
INSTITUTES: Final = ("cancer", "gard", "ghr", "medlineplus", "niddk", "ninds", "seniorhealth", "nhlbi", "cdc")
SOURCE: Final = "MedQuAD (Ben Abacha, Demner-Fushman 2019), github.com/abachaa/MedQuAD, CC BY 4.0"

_SHA256 = "190e98a1408ba53fc223cec2f4bb4249a840c3ce666e0fac1424a2716cb7e626"
_SEED: Final = 1
_URL = "https://github.com/abachaa/MedQuAD"


class Pair(Struct, frozen=True):
    """One of them. ``qtype``: what the question is about, such as "symptoms"."""

    source: str
    qtype: str
    question: str
    answer: str


def pairs(institute: str) -> tuple[Pair, ...]:
    """Those of one institute, in the file's order. ``BadInput`` for another, ``DataUnavailable`` without data."""
    if institute not in INSTITUTES:
        raise BadInput(f"MedQuAD has no institute {institute!r}: they are {', '.join(INSTITUTES)}")
    return _all()[INSTITUTES.index(institute)]


def training(institute: str) -> tuple[Pair, ...]:
    """Four fifths of them, in an order that a committed seed shuffles: a few are then of all kinds."""
    return _shuffled(institute)[len(pairs(institute)) // 5 :]


def held_out(institute: str) -> tuple[Pair, ...]:
    """The other fifth, shuffled too."""
    return _shuffled(institute)[: len(pairs(institute)) // 5]


def _shuffled(institute: str) -> tuple[Pair, ...]:
    found = pairs(institute)
    # RandomState's stream is frozen (NEP 19): the same order under every numpy.
    return tuple(found[place] for place in np.random.RandomState(_SEED).permutation(len(found)))


@cache
def _all() -> tuple[tuple[Pair, ...], ...]:
    path = locate("medquad", "medquad_answered.jsonl.gz", _SHA256, _URL, opened=gzip.decompress)
    found: list[list[Pair]] = [[] for _ in INSTITUTES]
    for line in gzip.decompress(path.read_bytes()).splitlines():
        pair = msgspec.json.decode(line, type=Pair)
        found[int(pair.source.partition("_")[0]) - 1].append(pair)
    return tuple(tuple(one) for one in found)
