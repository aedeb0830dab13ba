from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from securefl import vector
from securefl.errors import BadInput
from securefl.llm import adapters
from securefl.llm.adapters import Lora
from securefl.llm.bytewise import END, PAD, VOCABULARY, Bytewise, predictions
from securefl.llm.pretraining import Recipe, pretrained
from securefl.objective import IGNORED

TEXT = b"abcd" * 50
SMALL = Recipe(width=16, layers=1, heads=2, length=16, batch=8, steps=30, learning_rate=2e-2)


def test_a_model_is_made_once_and_has_learned_the_text(tmp_path: Path) -> None:
    folder = pretrained(TEXT, SMALL, tmp_path)
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert pretrained(TEXT, SMALL, tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    assert pretrained(TEXT + b"e", SMALL, tmp_path) != folder
    module = vector.build(lambda: adapters.causal(str(folder), Lora(rank=1), PAD), 0)
    pieces = torch.tensor([list(b"abcdabcdabcd")])
    with torch.no_grad():
        loss = nn.functional.cross_entropy(module(pieces[:, :-1])[0], pieces[0, 1:])
    assert loss < 2.5 < math.log(VOCABULARY) / 2


def test_equal_recipes_make_equal_models_here(tmp_path: Path) -> None:
    one, other = (pretrained(TEXT, SMALL, tmp_path / name) / "model.safetensors" for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


def test_a_text_shorter_than_a_piece_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="it must be longer"):
        pretrained(b"short", SMALL, tmp_path)


def test_of_a_question_and_its_answer_only_the_answer_counts() -> None:
    features, labels = predictions([("why?", "so"), ("a very long question", "it is cut off")], 10, 6)
    assert bytes(features[0, :7].astype("uint8")) == b"why?\nso"
    assert labels[0].tolist() == [*4 * [IGNORED], *b"so", END, *3 * [IGNORED]]
    assert bytes(features[1].astype("uint8")) == b"a very\nit "
    assert bytes(labels[1, 6:].astype("uint8")) == b"it i"


def test_what_is_encoded_is_decoded() -> None:
    text = Bytewise()
    assert text.decode([*text.encode("naïve ✓"), END, PAD]) == "naïve ✓"
    assert text.decode([0xFF]) == "\ufffd"
