from __future__ import annotations

import json
from pathlib import Path

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
