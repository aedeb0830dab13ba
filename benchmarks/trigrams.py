"""Trigrams of words, smoothed: what a model of sequences has to be better than. For the pilot ``keyboard``."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl.data import Dataset
from securefl.pilots.keyboard import START, UNKNOWN, WORDS

DISCOUNT: Final = 0.75  # of Kneser-Ney, as is usual
Followers = tuple[NDArray[np.int64], NDArray[np.int64]]
"""What follows a context: ids, and how often each."""


class Trigrams:
    """Trigrams under interpolated Kneser-Ney smoothing (Chen and Goodman 1999), of the rows' words."""

    def __init__(self, data: Dataset) -> None:
        pairs = np.stack([*_contexts(data.features), data.labels.astype(np.int64)], -1).reshape(-1, 3)
        triples = pairs[pairs[:, 2] > UNKNOWN]
        kinds, counts = np.unique(triples, axis=0, return_counts=True)
        doubles, continued = np.unique(kinds[:, 1:], axis=0, return_counts=True)
        single = np.bincount(doubles[:, 1], minlength=WORDS).astype(np.float64)
        self._single = single / single.sum()
        self._double = _grouped(doubles[:, :1], doubles[:, 1], continued)
        self._triple = _grouped(kinds[:, :2], kinds[:, 2], counts)

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        before, last = _contexts(rows)
        found = np.empty((*rows.shape, WORDS), np.float32)
        for place in np.ndindex(rows.shape):
            lower = _smoothed(self._double.get((int(last[place]),)), self._single)
            found[place] = _smoothed(self._triple.get((int(before[place]), int(last[place]))), lower)
        return found


def _contexts(features: NDArray[np.generic]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The last id but one, and the last, at each place of the rows."""
    last = features.astype(np.int64)
    before = np.full_like(last, START)
    before[:, 1:] = last[:, :-1]
    return before, last


def _grouped(
    contexts: NDArray[np.int64], words: NDArray[np.int64], counts: NDArray[np.int64]
) -> dict[tuple[int, ...], Followers]:
    """Of rows that are sorted by context."""
    kinds, first = np.unique(contexts, axis=0, return_index=True)
    ends = [*first[1:], len(contexts)]
    return {
        tuple(kind.tolist()): (words[start:end], counts[start:end])
        for kind, start, end in zip(kinds, first, ends, strict=True)
    }


def _smoothed(followers: Followers | None, lower: NDArray[np.float64]) -> NDArray[np.float64]:
    if followers is None:
        return lower
    words, counts = followers
    found: NDArray[np.float64] = lower * (DISCOUNT * len(words) / counts.sum())
    found[words] += (counts - DISCOUNT) / counts.sum()
    return found
