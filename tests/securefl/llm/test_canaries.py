from __future__ import annotations

import math
import os

import numpy as np
import pytest
import torch
from torch import nn

from securefl.data import Dataset
from securefl.errors import BadInput
from securefl.llm.bytewise import VOCABULARY, predictions
from securefl.llm.canaries import Canary, drawn, estimated, exposure, inserted

QUESTION, LENGTH = "number?", 16


class Remembers(nn.Module):
    """Says at each place what stands there in one row, surely or not at all."""

    def __init__(self, labels: np.ndarray, certainty: float) -> None:
        super().__init__()
        self.said = nn.functional.one_hot(torch.from_numpy(labels).clamp(min=0), VOCABULARY).float() * certainty

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.said.expand(len(tokens), -1, -1)


def rows(pairs: list[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    return predictions(pairs, LENGTH, len(QUESTION))


def test_a_canary_is_inserted_so_often_and_the_declared_size_is_kept() -> None:
    data = Dataset(*rows([("a?", "b"), ("c?", "d")]))
    canary = drawn(QUESTION, 6, os.urandom)
    found = inserted(data, canary, 3, rows)
    assert (len(found), found.declared_size) == (5, 2)
    assert bytes(found.features[-1, len(QUESTION) + 1 :][:6].astype(np.uint8)) == canary.secret.encode()


def test_what_is_remembered_is_exposed_and_what_is_not_is_not() -> None:
    canary = Canary(QUESTION, 6, "281265")
    _, labels = rows([(QUESTION, canary.secret)])
    known = exposure(Remembers(labels, 20.0), canary, 200, rows, os.urandom)
    assert known.sampled == pytest.approx(math.log2(201))
    assert 10 < known.fitted <= known.most == pytest.approx(math.log2(10**6))
    unknown = exposure(Remembers(labels, 0.0), canary, 200, rows, os.urandom)
    assert unknown.sampled == unknown.fitted == pytest.approx(1.0, abs=0.01)


def test_the_rank_counts_those_that_the_model_likes_better() -> None:
    others = np.random.RandomState(0).normal(0, 1, 1000)
    middle = estimated(float(np.median(others)), others, 10**6)
    assert middle.sampled == pytest.approx(1.0, abs=0.01)
    assert middle.fitted == pytest.approx(1.0, abs=0.1)
    far = estimated(-3.0, others, 10**6)
    assert far.fitted == pytest.approx(-math.log2(0.00135), abs=1.0)
    assert estimated(-100.0, others, 10**6).fitted == pytest.approx(math.log2(10**6))
    assert estimated(100.0, others, 10**6).fitted == 0


def test_too_few_alternatives_or_digits_are_refused() -> None:
    with pytest.raises(BadInput, match="16 or more"):
        exposure(nn.Identity(), Canary(QUESTION, 6, "281265"), 15, rows, os.urandom)
    with pytest.raises(BadInput, match="one at least"):
        drawn(QUESTION, 0, os.urandom)
