"""Models that bring code of their own, and weights that are pickles: neither is ever run."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from securefl.errors import BadInput, DataUnavailable
from securefl.llm import base, estimate, text
from tests.securefl.llm import tiny

CODE = """
from pathlib import Path
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizer
Path({marker!r}).write_text("run")
class Config(PretrainedConfig):
    model_type = "evilmodel"
class Model(PreTrainedModel):
    config_class = Config
class Tokenizer(PreTrainedTokenizer):
    pass
"""


def _config(folder: str) -> object:
    return estimate.of_config(folder, estimate.Setting())


def _weak_config(folder: str) -> object:
    return AutoConfig.from_pretrained(folder)


def _file(folder: str) -> object:
    return estimate.of_config(f"{folder}/model_only.json", estimate.Setting())


def _weak_file(folder: str) -> object:
    given = json.loads(Path(folder, "model_only.json").read_text())
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(given.pop("model_type"), **given))


DOORS: dict[str, tuple[Callable[[str], Any], Callable[[str], Any]]] = {
    "estimate": (_config, _weak_config),
    "estimate of a file": (_file, _weak_file),
    "causal": (base.causal, AutoModelForCausalLM.from_pretrained),
    "classifier": (lambda folder: base.classifier(folder, 2), AutoModelForSequenceClassification.from_pretrained),
    "encoder": (base.encoder, AutoModel.from_pretrained),
    "tokens": (text.tokens, AutoTokenizer.from_pretrained),
}


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the code of the model in ``tmp_path / "evil"`` leaves behind when it is run."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder, left = tmp_path / "evil", tmp_path / "marker"
    folder.mkdir()
    names = {"AutoConfig": "Config", "AutoTokenizer": "Tokenizer"}
    names |= dict.fromkeys(("AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification"), "Model")
    whole: dict[str, Any] = {name: f"evil.{own}" for name, own in names.items()}
    whole["AutoTokenizer"] = ["evil.Tokenizer", None]
    (folder / "evil.py").write_text(CODE.format(marker=str(left)))
    (folder / "config.json").write_text(json.dumps({"model_type": "evilmodel", "auto_map": whole}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": whole}))
    # A kind that transformers knows, but not as a language model; the code is named with its folder.
    only = {"model_type": "vit", "auto_map": {"AutoModelForCausalLM": f"{folder}--evil.Model"}}
    (folder / "model_only.json").write_text(json.dumps(only))
    return left


@pytest.mark.attack("a model's folder that brings its own code")
@pytest.mark.parametrize("door", DOORS)
def test_a_models_own_code_is_never_run_nor_asked_for(marker: Path, door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(marker.parent / "evil")
    ours, weak = DOORS[door]
    answers = io.StringIO("y\n" * 9)
    monkeypatch.setattr(sys, "stdin", answers)
    with pytest.raises(BadInput, match="code of its own"):
        ours(folder)
    assert not marker.exists()
    assert answers.tell() == 0  # nobody was asked
    with contextlib.suppress(Exception):
        weak(folder)
    assert marker.exists()


@pytest.mark.attack("weights that are a pickle")
def test_weights_that_are_a_pickle_are_not_read(tmp_path: Path) -> None:
    source = Path(tiny.gpt2(tmp_path / "base"))
    loaded = AutoModelForCausalLM.from_pretrained(source)
    (source / "model.safetensors").unlink()
    torch.save(loaded.state_dict(), source / "pytorch_model.bin")
    with pytest.raises(DataUnavailable, match=r"a pickle.*save_pretrained"):
        base.causal(str(source))
    AutoModelForCausalLM.from_pretrained(source)  # as transformers would have it


class _Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, left: Path) -> None:
        self.left = left

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.left,)


@pytest.mark.attack("a pickle that a config or an adapter names")
@pytest.mark.parametrize("named", ["by the config", "as an adapter"])
def test_a_pickle_that_the_folder_itself_names_runs_nothing(tmp_path: Path, named: str) -> None:
    source, left = Path(tiny.gpt2(tmp_path / "base")), tmp_path / "marker"
    evil = pickle.dumps({"weight": _Evil(left)})
    if named == "by the config":
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps(config | {"transformers_weights": "evil.bin"}))
        file = source / "evil.bin"
    else:
        adapter = {"peft_type": "LORA", "r": 1, "target_modules": ["c_attn"], "fan_in_fan_out": True}
        (source / "adapter_config.json").write_text(json.dumps(adapter))
        file = source / "adapter_model.bin"
    file.write_bytes(evil)
    with pytest.raises(DataUnavailable, match="holds no model that can be used"):
        base.causal(str(source))
    assert not left.exists()
    with contextlib.suppress(Exception):
        torch.load(file, weights_only=False)
    assert left.exists()
