"""A classifier on the mean of what a base says of a sequence's tokens: for those that were trained to be read so.

Sentence transformers are (Reimers and Gurevych, EMNLP 2019); what BERT says of its first token alone tells little of
what they learned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from torch import nn

from securefl.errors import UnsupportedModel
from securefl.llm import base as bases
from securefl.llm.adapters import Adapted, Lora
from securefl.llm.base import Base, Precision

HEAD: Final = "head.safetensors"


def pooled(source: str, classes: int, lora: Lora, pad: int = 0, precision: Precision = "float32") -> Pooled:
    """Such a classifier from a local folder or the hub: tokens (n, length) to logits (n, classes).

    Raises as :func:`securefl.llm.adapters.causal` does.
    """
    return Pooled(bases.encoder(source, precision), classes, lora, pad)


class Pooled(Adapted):
    """A frozen encoder with adapters, and a linear head, drawn with them."""

    def __init__(self, base: Base, classes: int, lora: Lora, pad: int) -> None:
        super().__init__(base, lora, pad, "FEATURE_EXTRACTION", None)
        self.head = nn.Linear(int(base.model.config.hidden_size), classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits, float32."""
        if tokens.ndim != 2:
            raise UnsupportedModel("a classifier takes one sequence a record: hand it tokens of shape (n, length)")
        seen = self.seen(tokens)
        said = self.peft.get_base_model()(input_ids=tokens, attention_mask=seen).last_hidden_state.float()
        counted = seen[..., None]
        found: torch.Tensor = self.head((said * counted).sum(1) / counted.sum(1))
        return found

    def save_adapters(self, folder: Path) -> None:
        """As of any; the head, which peft knows nothing of, beside them as ``head.safetensors``."""
        super().save_adapters(folder)
        save_file({name: one.detach().contiguous() for name, one in self.head.named_parameters()}, folder / HEAD)
