from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from securefl.errors import DataUnavailable
from securefl.llm import base
from tests.securefl.llm import tiny


def changed(source: str, folder: Path, **values: Any) -> str:
    """A copy, with the same weights to the bit and another config."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))
    return str(folder)


@pytest.mark.parametrize(
    "values",
    [{"n_head": 4}, {"activation_function": "relu"}, {"layer_norm_epsilon": 0.1}, {"scale_attn_weights": False}],
)
def test_equal_weights_that_compute_something_else_are_another_model(tmp_path: Path, values: dict[str, Any]) -> None:
    source = tiny.gpt2(tmp_path / "one")
    assert base.causal(source).digest != base.causal(changed(source, tmp_path / "other", **values)).digest


def test_where_a_model_lies_and_what_wrote_it_is_not_part_of_it(tmp_path: Path) -> None:
    source = tiny.gpt2(tmp_path / "one")
    copy = changed(
        source, tmp_path / "other", transformers_version="5.0.0", _name_or_path="/elsewhere", dtype="float16"
    )
    assert base.causal(source).digest == base.causal(copy).digest
    assert base.causal(source).digest != base.causal(source, "bfloat16").digest
    assert base.causal(source).digest != base.encoder(source).digest


def test_a_model_that_cannot_be_made_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    source = tiny.gpt2(tmp_path / "one")
    with pytest.raises(DataUnavailable, match="swoosh"):
        base.causal(changed(source, tmp_path / "other", activation_function="swoosh"))
    weights = tmp_path / "one" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataUnavailable, match="holds no model that can be used"):
        base.causal(source)
