from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from securefl.cli import main
from securefl.errors import BadInput, DataUnavailable
from securefl.llm.adapters import Lora
from securefl.llm.estimate import Setting, Shape, lines, of_config, of_shape

# Llama 3.1 8B, as published: 8.03e9 parameters.
LLAMA = Shape(4096, 32, 128256, 32, 8, 14336)


def test_parameters_are_those_of_the_published_model() -> None:
    found = of_shape(LLAMA, Setting(Lora(rank=8), clients=9))
    assert found.parameters == 8_030_261_248
    # For each layer of 32: rank times (in + out) of q, k, v, o, gate, up and down.
    widths = (4096 + 4096) * 2 + (4096 + 1024) * 2 + (4096 + 14336) * 3
    assert found.adapters == 32 * 8 * widths
    assert found.base == 2 * found.parameters
    assert found.up_secagg == 4 * found.adapters
    assert found.up_ckks > found.up_secagg


def test_a_higher_rank_costs_in_proportion_and_fewer_layers_less() -> None:
    small, large = (of_shape(LLAMA, Setting(Lora(rank=rank))).adapters for rank in (4, 8))
    assert large == 2 * small
    assert of_shape(LLAMA, Setting(Lora(rank=8, layers=("q_proj",)))).adapters == 32 * 8 * 8192


def test_longer_sequences_need_smaller_pieces() -> None:
    short, long = (of_shape(LLAMA, Setting(tokens=tokens, memory=2**36)) for tokens in (128, 2048))
    assert short.record < long.record
    assert short.at_once > long.at_once >= 1
    assert any(label == "DP-SGD" and "pieces" in text for label, text in lines(long, Setting(tokens=2048)))


def test_a_config_is_enough_and_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 258, "n_positions": 128}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    found = of_config(str(path), Setting(Lora(rank=8)))
    assert found.adapters == 16_384
    assert of_config(str(tmp_path), Setting(Lora(rank=8))).parameters == found.parameters
    path.write_text("{")
    with pytest.raises(BadInput, match="names a model_type"):
        of_config(str(path), Setting())
    path.write_text("{}")
    with pytest.raises(BadInput, match="names a model_type"):
        of_config(str(path), Setting())
    with pytest.raises(DataUnavailable, match="cannot be had"):
        of_config(str(tmp_path / "nowhere" / "no" / "model"), Setting())


GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 258, "n_positions": 128}
LLAMA_FILE = {
    **{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"vocab_size": 258, "intermediate_size": 96, "max_position_embeddings": 128},
}
UNUSABLE: dict[str, Any] = {
    "an activation that there is not": GPT2 | {"activation_function": "swoosh"},
    "positions of a kind that there is not": LLAMA_FILE | {"rope_scaling": {"rope_type": "swoosh", "factor": 2.0}},
    "positions that are a text": LLAMA_FILE | {"rope_scaling": "swoosh"},
    "a size that is a text": GPT2 | {"n_embd": "wide"},
    "a size that is nothing": GPT2 | {"n_embd": None},
    "no width": GPT2 | {"n_embd": 0},
    "no width, other architecture": LLAMA_FILE | {"hidden_size": 0},
    "no heads": GPT2 | {"n_head": 0},
    "heads below nothing": LLAMA_FILE | {"num_attention_heads": -4, "num_key_value_heads": -4},
    "no layers": GPT2 | {"n_layer": 0},
    "heads that do not go into the width": GPT2 | {"n_head": 3},
    "a kind that there is not": GPT2 | {"model_type": "swoosh"},
    "a kind that is a list": GPT2 | {"model_type": ["gpt2"]},
    "an attention of a package that is not there": LLAMA_FILE | {"attn_implementation": "flash_attention_2"},
    "no language model": {"model_type": "vit"},
    "of more than one model": {"model_type": "clip"},
    "a list": [GPT2],
}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_config_that_makes_no_model_is_named_with_what_is_wrong(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(UNUSABLE[name]))
    with pytest.raises(BadInput, match=str(tmp_path)):
        of_config(str(path if kind == "file" else tmp_path), Setting())


def test_a_config_that_is_too_deep_to_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 100_000)
    for source in (tmp_path / "config.json", tmp_path):
        with pytest.raises(BadInput, match=str(tmp_path)):
            of_config(str(source), Setting())


@pytest.mark.parametrize("memory", ["inf", "nan", "1e300", "1e10", "-1", "0"])
def test_a_memory_that_is_none_is_refused(memory: str, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--hidden", "64", "--depth", "2", "--vocabulary", "100", "--heads", "4"]
    assert main(["estimate", *sizes, "--memory", memory, "--json"]) == 2
    assert "memory" in capsys.readouterr().err
    if memory in ("-1", "0"):
        with pytest.raises(BadInput, match="memory"):
            Setting(memory=int(memory))


def test_sequences_longer_than_any_memory_are_refused() -> None:
    with pytest.raises(BadInput, match="more memory than any machine has"):
        of_shape(LLAMA, Setting(tokens=10**9))
    with pytest.raises(BadInput, match="OverflowError"):
        of_shape(LLAMA, Setting(tokens=10**200))


@pytest.mark.parametrize("shape", [Shape(10, 1, 10, 3), Shape(12, 0, 10, 3), Shape(12, 1, 10, 3, 2)])
def test_sizes_that_do_not_go_together_are_refused(shape: Shape) -> None:
    with pytest.raises(BadInput, match="multiple of heads"):
        of_shape(shape, Setting())


def test_the_command_says_it_in_lines_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--hidden", "64", "--depth", "2", "--vocabulary", "100", "--heads", "4"]
    assert main(["estimate", *sizes, "--json"]) == 0
    printed = capsys.readouterr()
    assert "all that is trained and sent" in printed.err
    assert msgspec.json.decode(printed.out.splitlines()[-1])["at_once"] >= 1
    assert main(["estimate", *sizes, "--precision", "int4"]) == 2
    assert main(["estimate"]) == 2
    assert "--hidden, --depth and --vocabulary" in capsys.readouterr().err
