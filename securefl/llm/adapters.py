"""A language model with LoRA adapters (Hu et al., ICLR 2022): they, and a classifier's head, are all that is trained.

What is trained is all that :mod:`securefl.vector` sees, so nothing else is sent, clipped, protected or accounted.
Adapters are two linear layers each, A and B; opacus takes their gradients record by record as those of any other. A is
drawn when the module is built, under the plan's seed, and so is alike at all clients; B starts from zero.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from msgspec import Struct
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from securefl import vector
from securefl.errors import BadInput, TrainingFailed, UnsupportedModel
from securefl.llm import base as bases
from securefl.llm.base import Base, Precision, quiet, sharing
from securefl.llm.blocks import positions, within_blocks

if TYPE_CHECKING:
    from peft import PeftModel

_ADAPTER = "default"  # peft's name for the only one
_PROBE = 8  # tokens of the made-up sequence on which it is seen whether the output moved


class Lora(Struct, frozen=True):
    """Adapters of a rank: the weights of a layer become W + (``scale`` / ``rank``) B A.

    ``layers``: the last part of the names of those that get one; none: every linear layer but the one behind the last.
    Raises ``BadInput`` for a rank or scale that is none.
    """

    rank: int = 8
    scale: int = 16
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1 or self.scale < 1:
            raise BadInput(f"LoRA of rank {self.rank} and scale {self.scale}: both are whole numbers above 0")


_USUAL = Lora()


class Text(Protocol):
    """How text becomes tokens and tokens text. ``end``: the token that ends an answer, if there is one."""

    end: int | None

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: list[int]) -> str: ...


def causal(
    source: str,
    lora: Lora = _USUAL,
    pad: int = 0,
    precision: Precision = "float32",
    text: Text | None = None,
) -> Adapted:
    """A language model from a local folder or the hub: tokens (n, length) to logits (n, length, vocabulary).

    ``pad``: the token that fills sequences up, behind their end. Raises ``DataUnavailable`` where there is no such
    model, ``BadInput`` for layers that it has not, ``MissingExtra`` without transformers and peft.
    """
    return Adapted(bases.causal(source, precision), lora, pad, "CAUSAL_LM", text)


def classifier(
    source: str,
    classes: int,
    lora: Lora = _USUAL,
    pad: int = 0,
    precision: Precision = "float32",
) -> Adapted:
    """A sequence classifier: tokens (n, length) to logits (n, classes); its head is trained too. Raises as ``causal``.

    A head that the source does not bring is drawn with the adapters, under the plan's seed.
    """
    return Adapted(bases.classifier(source, classes, precision), lora, pad, "SEQ_CLS", None)


class Adapted(nn.Module):
    """A frozen base with adapters; they are float32 whatever the base is held in. Dropout is off.

    The base's hash is part of every parameter's name, and so of the plan's ``architecture``: clients whose bases differ
    in a bit do not accept each other's plan. Copies share the base. ``state_dict`` holds what is trained only.

    ``speaks``: it says tokens, not classes. ``room``: tokens that it sees at once. ``pad``: what fills sequences up.
    """

    def __init__(self, base: Base, lora: Lora, pad: int, task: str, text: Text | None) -> None:
        super().__init__()
        self._name = f"base_{base.digest[:32]}"
        self.pad = pad
        self.text = text
        self.speaks = task == "CAUSAL_LM"
        self.room = int(getattr(base.model.config, "max_position_embeddings", 0)) or 1024
        self.vocabulary = int(base.model.config.vocab_size)
        if not 0 <= pad < self.vocabulary:
            raise BadInput(f"pad token {pad}: the model knows tokens 0 to {self.vocabulary - 1}")
        self.add_module(self._name, _adapted(base, lora, pad, task))
        self.register_state_dict_post_hook(_without_frozen)  # type: ignore[no-untyped-call]

    @property
    def peft(self) -> PeftModel:
        """The same as peft has it."""
        return self.get_submodule(self._name)  # type: ignore[return-value]

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits, float32. Of tokens (n, k, length), k sequences of one person: as if they were one of k * length,
        (n, k * length, vocabulary), none of which sees another (:mod:`securefl.llm.blocks`).
        """
        if tokens.ndim == 3:
            return self._of_people(tokens)
        return self._logits(tokens, attention_mask=self.seen(tokens))

    def seen(self, tokens: torch.Tensor) -> torch.Tensor:
        """Where there is no padding, 1, else 0; int64 (n, length). The first place is always seen: a row of nothing
        but padding would divide by zero.
        """
        found = tokens != self.pad
        found[:, 0] = True
        return found.long()

    def check_moved(self, before: NDArray[np.float32], after: NDArray[np.float32]) -> None:
        """Raise ``TrainingFailed`` unless what changed from one flat vector to the other changes adapters, the weights
        that they are merged into, and what the model says. The module itself is left as it was.
        """
        old, new = sharing(self), sharing(self)
        vector.load(old, before)
        vector.load(new, after)
        if all(torch.equal(one, other) for one, other in zip(old._adapters(), new._adapters(), strict=True)):
            raise TrainingFailed(_STILL.format("no adapter moved"))
        pairs = zip(old._merged(), new._merged(), strict=True)
        if all(torch.equal(one, other) for one, other in pairs):
            raise TrainingFailed(_STILL.format("the adapters moved, and the weights that they are merged into did not"))
        probe = torch.arange(_PROBE, device=next(self.parameters()).device)[None] % self.vocabulary
        with torch.no_grad():
            if torch.equal(old.eval()(probe), new.eval()(probe)):
                raise TrainingFailed(_STILL.format("the adapters moved, and what the model says did not"))

    def save_adapters(self, folder: Path) -> None:
        """Write adapters and head in peft's own format: ``PeftModel.from_pretrained(base, folder)`` loads them."""
        with quiet():
            self.peft.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # a form to fill in, about nothing of ours

    def __deepcopy__(self, memo: dict[int, Any]) -> Adapted:
        memo |= {id(one): one for one in self.parameters() if not one.requires_grad}
        memo |= {id(one): one for one in (*self.buffers(), self.text)}
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return made

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Adapted:
        # Moving a copy to another device must not move the base of the others.
        for module in self.modules():
            for name, one in module._parameters.items():
                if one is not None and not one.requires_grad:
                    module._parameters[name] = nn.Parameter(one.data, requires_grad=False)
        return super()._apply(fn, recurse)  # type: ignore[no-any-return,no-untyped-call]

    def _of_people(self, tokens: torch.Tensor) -> torch.Tensor:
        if not self.speaks:
            raise UnsupportedModel("a classifier takes one sequence a record: hand it tokens of shape (n, length)")
        kind = next(one.dtype for one in self.parameters() if not one.requires_grad)
        mask = within_blocks(tokens, self.pad, kind)
        return self._logits(tokens.flatten(1), attention_mask=mask, position_ids=positions(tokens))

    def _logits(self, tokens: torch.Tensor, **given: torch.Tensor) -> torch.Tensor:
        model = self.peft.get_base_model()
        options = {"use_cache": False} if self.speaks else {}
        found: torch.Tensor = model(input_ids=tokens, **given, **options).logits
        return found.float()

    def _adapters(self) -> list[nn.Parameter]:
        return [one for name, one in self.named_parameters() if one.requires_grad and "lora_" in name]

    def _merged(self) -> Iterator[torch.Tensor]:
        """What each layer's weights are changed by, one after the other: each is as large as the layer."""
        for layer in self.modules():
            if callable(getattr(layer, "get_delta_weight", None)):
                with torch.no_grad():
                    yield layer.get_delta_weight(_ADAPTER)  # type: ignore[operator]


_STILL = "{}: this training trains nothing, whatever loss and epsilon say. Use the peft that securefl was tested with"


def _adapted(base: Base, lora: Lora, pad: int, task: str) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    model = base.shell()
    model.config.pad_token_id = pad
    for name in base.fresh:
        _redrawn(model.get_submodule(name))
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.scale,
        target_modules=list(lora.layers) or "all-linear",
        # What BERT says of its first token alone: of no use where the mean is taken.
        exclude_modules=r".*pooler.*" if task == "FEATURE_EXTRACTION" else None,
        lora_dropout=0.0,
        bias="none",
        # GPT-2's layers keep their weights the other way round.
        fan_in_fan_out=any(type(layer).__name__ == "Conv1D" for layer in model.modules()),
        task_type=task,
    )
    try:
        with quiet():
            made: nn.Module = get_peft_model(model, config)
    except ValueError as error:
        raise BadInput(f"no adapters fit {base.source}: {str(error).splitlines()[0]}") from error
    _without_dropout(made)
    return made


def _redrawn(layer: nn.Module) -> None:
    """From torch's generator as it stands, which is seeded by the plan; the base was loaded before that."""
    for part in layer.modules():
        if isinstance(part, nn.Linear):
            part.reset_parameters()


def _without_dropout(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, _DropoutNd):
            layer.p = 0.0
        # Numbers that functions are given in training: attention's, whole layers' that are left out (BART's).
        for place in (layer, getattr(layer, "config", None)):
            for name, value in list(getattr(place, "__dict__", {}).items()):
                if "drop" in name and isinstance(value, float):
                    setattr(place, name, 0.0)


def _without_frozen(module: nn.Module, state: dict[str, torch.Tensor], prefix: str, _: object) -> None:
    trained = {prefix + name for name, one in module.named_parameters() if one.requires_grad}
    for name in [name for name in state if name.startswith(prefix) and name not in trained]:
        del state[name]
