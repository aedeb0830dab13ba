"""The frozen model that adapters are put on: from a local folder or the hub, named by a hash of weights and config."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import torch

from securefl.errors import DataUnavailable, MissingExtra
from securefl.llm.foreign import explained

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Precision = Literal["float32", "bfloat16"]
"""What the base is held in. Adapters are float32 always: they are what is clipped."""

# Of a config: where it lies, and what wrote it. Types are those of the weights, one by one.
_NOT_THE_MODEL: Final = frozenset({"_name_or_path", "_commit_hash", "transformers_version", "dtype", "torch_dtype"})


@dataclass(frozen=True)
class Base:
    """A frozen model. ``digest``: SHA-256 (hex) of its config and its weights, names, shapes and types.

    Equal means the same model, under the same version of transformers: weights alone do not say how many heads there
    are. ``fresh``: the names of layers that the file did not have, such as a new classifier's head; not in the hash.
    """

    model: PreTrainedModel
    source: str
    digest: str
    fresh: tuple[str, ...]

    def shell(self) -> PreTrainedModel:
        """A copy that shares the weights, so that however many clients there are, memory holds them once."""
        return cast("PreTrainedModel", sharing(self.model))


def causal(source: str, precision: Precision = "float32") -> Base:
    """A language model that predicts the next token. ``source``: a local folder, or a name on the hub.

    Raises ``DataUnavailable`` where there is none to be had, or as a pickle only, ``BadInput`` for one that only code
    of its own can make (neither is ever run), ``MissingExtra`` without transformers.
    """
    require()
    return _loaded("causal", source, 0, precision)


def classifier(source: str, classes: int, precision: Precision = "float32") -> Base:
    """A model that says one of ``classes`` of a whole sequence; raises as ``causal`` does."""
    require()
    return _loaded("classifier", source, classes, precision)


def encoder(source: str, precision: Precision = "float32") -> Base:
    """A model that says a vector of each token; raises as ``causal`` does."""
    require()
    return _loaded("encoder", source, 0, precision)


def require() -> None:
    """Raise ``MissingExtra`` unless transformers and peft are installed."""
    if any(importlib.util.find_spec(name) is None for name in ("transformers", "peft")):
        raise MissingExtra("a language model", "llm")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' progress bars, load reports and quarrels among themselves off the screen."""
    from transformers.utils import logging as spoken

    level, bars = spoken.get_verbosity(), spoken.is_progress_bar_enabled()
    spoken.set_verbosity(logging.ERROR)
    spoken.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            for category in (FutureWarning, DeprecationWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        spoken.set_verbosity(level)
        if bars:
            spoken.enable_progress_bar()  # type: ignore[no-untyped-call]


def sharing(module: Any) -> Any:
    """A copy of a module that shares all parameters and buffers with it that are not trained."""
    frozen = [one for one in module.parameters() if not one.requires_grad]
    memo = {id(tensor): tensor for tensor in (*frozen, *module.buffers())}
    return copy.deepcopy(module, memo)


@lru_cache(maxsize=2)  # every client and every round builds its module anew
def _loaded(kind: str, source: str, classes: int, precision: Precision) -> Base:
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

    doors = {"causal": AutoModelForCausalLM, "classifier": AutoModelForSequenceClassification, "encoder": AutoModel}
    labels = {"num_labels": classes} if kind == "classifier" else {}
    with quiet(), torch.random.fork_rng(devices=[]), explained(source, lambda why: _unusable(source, why)):
        model, told = doors[kind].from_pretrained(
            source,
            trust_remote_code=False,
            use_safetensors=True,
            weights_only=True,  # should transformers read a pickle all the same: its numbers, never its code
            dtype=getattr(torch, precision),
            output_loading_info=True,
            **labels,
        )
    model.requires_grad_(False).eval()
    fresh = tuple(sorted({name.rpartition(".")[0] for name in told["missing_keys"]}))
    return Base(model, source, _digest(model, fresh), fresh)


def _unusable(source: str, why: str) -> DataUnavailable:
    folder = Path(source)
    if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
        return DataUnavailable(
            f"the folder {source} holds its weights as a pickle, which could run code and is not read: where you trust "
            "it, convert it once, by save_pretrained(NEW) of what transformers loads from it, and name that folder"
        )
    if folder.is_dir():
        return DataUnavailable(
            f"the folder {source} holds no model that can be used ({why}): it needs config.json and safetensors"
        )
    return DataUnavailable(
        f"the model {source!r} is no folder here and cannot be fetched ({why}): name a folder that holds config.json "
        "and safetensors, or connect to the network"
    )


def _digest(model: PreTrainedModel, fresh: tuple[str, ...]) -> str:
    config = json.dumps(_of_the_model(model.config.to_dict()), sort_keys=True, default=str)
    found = hashlib.sha256(f"{type(model).__name__} {config}\n".encode())
    for name, tensor in model.state_dict().items():
        if name.rpartition(".")[0] in fresh:
            continue
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(memoryview(tensor.contiguous().flatten().view(torch.uint8).numpy()))
    return found.hexdigest()


def _of_the_model(part: Any) -> Any:
    """A config, or a part of one, without what is the same model elsewhere."""
    match part:
        case dict():
            return {str(key): _of_the_model(value) for key, value in part.items() if key not in _NOT_THE_MODEL}
        case list() | tuple():
            return [_of_the_model(value) for value in part]
    return part
