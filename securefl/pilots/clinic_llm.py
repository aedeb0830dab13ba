"""A language model that answers medical questions, tuned by nine institutes that keep their texts: LoRA on MedQuAD.

The base is a small GPT-2 that this pilot makes itself from Shakespeare, byte by byte, in about a minute and once; it is
public, and kept in the cache. Institutes tune adapters on it (:mod:`securefl.llm`), and nothing else travels. Loss and
perplexity are of the answers' bytes.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from securefl.data import Dataset
from securefl.download import cache_folder, locate
from securefl.pilots import Pilot, Recipe, medquad
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD, SGD, Budget
from securefl.report.hazards import hazard

if TYPE_CHECKING:
    from torch import nn

CLIENTS = medquad.INSTITUTES
# Declared training rows, in the order of CLIENTS; a test compares them with the split.
ROWS = (256, 256, 256, 256, 256, 256, 256, 256, 216)
LENGTH: Final = 128  # bytes of question and answer: what the base knows
_PROMPT: Final = 48  # bytes of the question
_MOST, _TESTED = 256, 16  # training and test rows of an institute: as many as two cores train on in minutes

_SHAKESPEARE = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"


def load(client: str) -> Dataset:
    """Training rows of one institute: bytes, and at each the next one where it is of the answer."""
    return _rows(medquad.training(client)[:_MOST])


def held_out(client: str) -> Dataset:
    """Rows of one institute that are not trained on."""
    return _rows(medquad.held_out(client)[:_TESTED])


def test() -> Dataset:
    """The public test set: the institutes' held-out rows, pooled."""
    parts = [held_out(client) for client in CLIENTS]
    return Dataset(np.concatenate([part.features for part in parts]), np.concatenate([part.labels for part in parts]))


def model() -> nn.Module:
    """The base with adapters of rank 8 on every layer: 16,384 parameters."""
    from securefl.llm import adapters
    from securefl.llm.bytewise import PAD, Bytewise

    return adapters.causal(str(base()), adapters.Lora(rank=8, scale=16), PAD, text=Bytewise())


@cache
def base() -> Path:
    """The folder of the base: ``$SECUREFL_DATA/clinic_llm`` if there is one, else in the cache, else made there.

    Machines make bases that differ in their last bits, and the plan names one by its hash: where institutes are apart,
    give all of them one folder.
    """
    given = Path(os.environ.get("SECUREFL_DATA") or os.devnull) / "clinic_llm"
    if (given / "config.json").is_file():
        return given
    from securefl.llm.pretraining import Recipe as Making
    from securefl.llm.pretraining import pretrained

    text = locate("shakespeare", "input.txt", _SHAKESPEARE, _URL).read_bytes()
    return pretrained(text, Making(length=LENGTH), cache_folder() / "clinic-llm")


def _rows(pairs: tuple[medquad.Pair, ...]) -> Dataset:
    from securefl.llm.bytewise import predictions

    return Dataset(*predictions([(pair.question, pair.answer) for pair in pairs], LENGTH, _PROMPT))


PILOT = Pilot(
    name="clinic-llm",
    title="A language model for medical questions, tuned at nine institutes",
    clients=CLIENTS,
    classes=(*(f"byte {value}" for value in range(256)), "end", "padding"),
    load=load,
    test=test,
    model=model,
    private=Recipe(DPSGD(noise_multiplier=1.05, sampling_rate=0.25, steps=4, clip=1.0), LocalOptimizer(0.1), rounds=8),
    public=Recipe(SGD(sampling_rate=0.125, steps=8), LocalOptimizer(0.06, momentum=0.9), rounds=8),
    budget=Budget(epsilon=8.0, delta=1e-4),
    hazards=(
        hazard("tuning", "recipes tuned by trials on these training rows, not charged to the budget"),
        hazard("sample-counts", "row counts of the institutes, used as weights and divisors, are treated as public"),
    ),
    source=f"{medquad.SOURCE}; the base: Shakespeare's plays, public domain, as in karpathy/char-rnn",
    # rows / 256, to two digits
    weights=tuple(round(rows / max(ROWS), 2) for rows in ROWS),
    rows=ROWS,
    held_out=held_out,
)
