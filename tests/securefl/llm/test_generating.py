"""A run of a tiny language model through the real protocol, and what is made of it: adapters, answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from securefl.cli import main
from tests.securefl.llm import tiny

JOB = """
[job]
name = "tiny"
rounds = 1
[data]
loader = "tinyjob:load"
test = "tinyjob:test"
clients = ["a", "b", "c"]
[model]
factory = "tinyjob:model"
[training]
sampling_rate = 1.0
steps = 2
learning_rate = 0.1
[privacy]
enabled = false
[protection]
kind = "{kind}"
"""
CODE = """
from securefl.data import Dataset
from securefl.llm import adapters
from securefl.llm.bytewise import PAD, Bytewise, predictions

def load(client):
    return Dataset(*predictions([("what?", client * 9)] * 4, 24, 8))

def test():
    return load("a")

def model():
    return adapters.causal({source!r}, adapters.Lora(rank=2, scale=4), PAD, text=Bytewise())
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from securefl.llm.bytewise import VOCABULARY

    source = tiny.gpt2(tmp_path / "base", vocabulary=VOCABULARY)
    (tmp_path / "tinyjob.py").write_text(CODE.format(source=source))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("tinyjob", None)
    return tmp_path


@pytest.mark.parametrize("kind", ["secagg", "ckks"])
def test_a_run_leaves_adapters_that_peft_loads_and_a_model_that_answers(
    job: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (job / "job.toml").write_text(JOB.format(kind=kind))
    assert main(["run", "job.toml", "--out", "out", "--json"]) == 0
    summary = msgspec.json.decode(capsys.readouterr().out.splitlines()[-1])
    assert main(["verify", "out"]) == 0
    assert Path(summary["model"]).stat().st_size < 50_000  # adapters, not the base
    capsys.readouterr()
    adapters = Path(summary["model"]).parent / "adapters"
    program = (
        "import sys; from peft import PeftModel; from transformers import AutoModelForCausalLM as A; "
        f"PeftModel.from_pretrained(A.from_pretrained({str(job / 'base')!r}), {str(adapters)!r}); "
        "sys.exit('securefl' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    asked = ["generate", "out", "--prompt", "what?", "--tokens", "5", "--seed", "1", "--json"]
    answers = []
    for _ in range(2):
        assert main(asked) == 0
        answers.append(msgspec.json.decode(capsys.readouterr().out.splitlines()[-1]))
    assert answers[0] == answers[1] and answers[0]["prompt"] == "what?"
    assert main(["generate", "out", "--prompt", "x" * 40]) == 2
    assert "shorten it" in capsys.readouterr().err


def test_generating_from_what_is_no_language_model_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(tmp_path)]) == 2
    assert "has no job.toml" in capsys.readouterr().err
    (tmp_path / "job.toml").write_text('[data]\npilot = "breast-cancer"\n')
    assert main(["generate", str(tmp_path)]) == 2
    assert "no language model" in capsys.readouterr().err
