"""Code that a job names is found, called, and its results are checked before anything is trained on them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from securefl.errors import BadInput, BadJob
from securefl.job import federation
from securefl.job.sections import Data

MODULE = """
import numpy as np
from torch import nn

def load(client):
    if client == "broken":
        raise OSError("disk on fire")
    return np.ones((4, 2)), [0, 1, 0, 1]

def words(client):
    return np.array([["a", "b"]]), [0]

def named(client):
    return np.ones((2, 2)), ["ill", "well"]

def nothing(client=None):
    return None

def model():
    return nn.Linear(2, 2)

number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the current folder, which is not on the path otherwise."""
    (tmp_path / "their_code.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "their_fault.py").write_text("1 / 0", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "their_code"
    sys.modules.pop("their_code", None)


def build(
    module: str,
    loader: str = "load",
    test: str | None = None,
    model: str = "model",
    sizes: dict[str, int] | None = None,
) -> federation.Federation:
    tested = None if test is None else f"{module}:{test}"
    data = Data(("a", "b", "c"), "theirs", sizes=sizes or {})
    return federation.of_code(f"{module}:{loader}", tested, f"{module}:{model}", data)


def test_a_declared_size_replaces_the_number_of_records(module: str) -> None:
    undeclared, some = build(module), build(module, sizes={"a": 1000})
    assert undeclared.load("a").declared_size == len(undeclared.load("a"))
    assert some.load("a").declared_size == 1000


def test_code_in_the_current_folder_is_found(module: str) -> None:
    found = build(module)
    data = found.load("a")
    assert (len(data), data.features.dtype, data.labels.dtype) == (4, np.float32, np.int64)
    assert sum(parameter.numel() for parameter in found.model().parameters()) == 6
    assert found.test is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("their_code:lod", "Did you mean 'load'?"),
        ("their_code:number", "has no function 'number'"),
        ("their_code", "not of the form package.module:function"),
        (
            "no_such_package.code:load",
            "start securefl in the folder that holds no_such_package",
        ),
        ("their_fault:load", "ZeroDivisionError"),
    ],
)
def test_code_that_cannot_be_named_is_refused(module: str, name: str, words: str) -> None:
    with pytest.raises(BadJob) as caught:
        federation.resolve("data.loader", name)
    assert caught.value.key == "data.loader"
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("loader", "client", "words"),
    [
        ("load", "broken", "OSError: disk on fire"),
        ("words", "a", "turn every column into numbers"),
        ("named", "a", "class numbers 0, 1, 2"),
        ("nothing", "a", "return (features, labels)"),
    ],
)
def test_a_loader_that_fails_is_named(module: str, loader: str, client: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        build(module, loader).load(client)
    assert words in str(caught.value)
    assert f"{module}:{loader}" in str(caught.value)


def test_a_factory_must_make_a_module(module: str) -> None:
    with pytest.raises(BadInput, match=r"must return a torch\.nn\.Module"):
        build(module, model="nothing").model()
