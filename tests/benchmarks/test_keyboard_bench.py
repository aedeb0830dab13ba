from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import keyboard, trigrams
from benchmarks.trigrams import Trigrams
from securefl import Dataset
from securefl.objective import IGNORED
from securefl.pilots.keyboard import START, UNKNOWN, WORDS

ROWS = Dataset(
    np.array([[START, 5, 6, 7], [START, 5, 6, 8], [5, 6, 7, UNKNOWN]], np.int64),
    np.array([[5, 6, 7, 5], [5, 6, 8, IGNORED], [6, 7, IGNORED, 9]], np.int64),
)


def test_trigrams_are_probabilities_and_prefer_what_was_seen() -> None:
    scores = Trigrams(ROWS)(np.array([[START, 5, 6], [1999, 5, 6]], np.int64))
    assert scores.shape == (2, 3, WORDS)
    assert np.allclose(scores.sum(-1), 1, atol=1e-5)
    assert (scores[..., : UNKNOWN + 1] == 0).all()
    assert scores[0, 1].argmax() == 6 and scores[0, 2].argmax() == 7


def test_trigrams_are_kneser_neys() -> None:
    """Of one context, from the definition: 5, 6 is followed by 7 twice and by 8 once; 6 alone likewise."""
    kinds = Counter([(5, 6, 7), (5, 6, 8)])  # kinds of trigrams that end in 6, w; each counts once for the pair
    single = {5: 2, 6: 1, 7: 1, 8: 1, 9: 1}  # pairs that end in a word: (0, 5), (7, 5), (5, 6), (6, 7), (6, 8), (1, 9)
    discount, total = trigrams.DISCOUNT, 3
    for word, count in ((7, 2), (8, 1)):
        lowest = single[word] / 6
        pair = (kinds[5, 6, word] - discount) / 2 + discount * 2 / 2 * lowest
        expected = (count - discount) / total + discount * 2 / total * pair
        assert Trigrams(ROWS)(np.array([[5, 6]], np.int64))[0, 1, word] == pytest.approx(expected)


def test_recall_counts_unknown_words_as_missed_and_never_suggests_them() -> None:
    def scores(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        found = np.zeros((*rows.shape, WORDS), np.float32)
        found[..., [START, UNKNOWN]] = 9.0
        found[..., [6, 7, 5]] = 3.0, 2.0, 1.0
        return found

    found = keyboard.recalls(scores, ROWS, coverage=0.5)
    labels = ROWS.labels[ROWS.labels != IGNORED]
    assert found[1] == pytest.approx(0.5 * (labels == 6).mean())
    assert found[3] == pytest.approx(0.5 * np.isin(labels, [5, 6, 7]).mean())


def test_scores_are_not_changed_by_measuring_them() -> None:
    kept = np.random.RandomState(0).rand(3, 4, WORDS).astype(np.float32)
    before = kept.copy()
    keyboard.recalls(lambda _: kept, ROWS, coverage=1.0)
    assert np.array_equal(kept, before)


@pytest.mark.needs_data
@pytest.mark.slow
def test_a_quick_run_has_every_row() -> None:
    names = [row.name for row in keyboard.rows(quick=True)]
    kinds = ("ngram", "central", "federated", "federated_dp")
    assert {f"keyboard_top{most}_{kind}" for most in (1, 3) for kind in kinds} <= set(names)
    assert "keyboard_epsilon" in names and len(set(names)) == len(names)
