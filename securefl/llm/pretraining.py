"""A small language model made from a text, for federations that must run without a network: GPT-2's architecture.

It is public: made from a public text, once, and kept in a folder that other clients can be given. Two machines make
models that differ in their last bits, so a federation of several machines copies one folder.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import msgspec
import torch
from msgspec import Struct
from torch import nn

from securefl.errors import BadInput
from securefl.llm.base import quiet, require
from securefl.llm.bytewise import VOCABULARY
from securefl.run_folder import explained

_LARGEST_NORM = 1.0  # of a batch's gradient; the usual one


class Recipe(Struct, frozen=True):
    """A model and how it is made: ``steps`` of AdamW on ``batch`` pieces of ``length`` bytes, the rate going to 0."""

    width: int = 64
    layers: int = 2
    heads: int = 4
    length: int = 128
    batch: int = 12
    steps: int = 800
    learning_rate: float = 4e-3
    seed: int = 0


def pretrained(text: bytes, recipe: Recipe, kept: Path) -> Path:
    """The folder of the model that this recipe makes of ``text``, in transformers' format: found in ``kept``, or made.

    Takes a minute for the default recipe, once. Raises ``BadInput`` for a text shorter than a piece or a folder that
    cannot be written, ``MissingExtra`` without transformers.
    """
    require()
    if len(text) <= recipe.length:
        raise BadInput(f"a text of {len(text)} bytes: to learn from pieces of {recipe.length} it must be longer")
    name = hashlib.sha256(msgspec.json.encode(recipe) + hashlib.sha256(text).digest()).hexdigest()[:16]
    folder = kept / name
    if (folder / "config.json").is_file():
        return folder
    model = _made(text, recipe)
    with explained(folder):
        kept.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=kept))
        with quiet():
            model.save_pretrained(partial)  # type: ignore[operator]
        try:
            partial.replace(folder)
        except OSError:  # another process was faster: one model, for all
            shutil.rmtree(partial)
    return folder


def _made(text: bytes, recipe: Recipe) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=recipe.length,
        n_embd=recipe.width,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        model: nn.Module = GPT2LMHeadModel(config)
        _learn(model, torch.frombuffer(bytearray(text), dtype=torch.uint8).long(), recipe)
    return model


def _learn(model: nn.Module, text: torch.Tensor, recipe: Recipe) -> None:
    descent = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(descent, recipe.steps)
    for _ in range(recipe.steps):
        starts = torch.randint(0, len(text) - recipe.length, (recipe.batch,))
        pieces = torch.stack([text[start : start + recipe.length + 1] for start in starts.tolist()])
        logits = model(input_ids=pieces[:, :-1], use_cache=False).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), pieces[:, 1:].flatten())
        descent.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_NORM)
        descent.step()
        falling.step()
