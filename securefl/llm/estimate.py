"""What tuning a language model would take, from its config alone: nothing of its weights is fetched or made.

Parameters are counted on a model without memory. Memory of activations is Korthikanti et al. (MLSys 2023, equation 2):
per layer s b h (34 + 5 a s / h) bytes in 16 bits, of which a frozen base needs somewhat less.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from msgspec import Struct

from securefl.errors import BadInput, DataUnavailable
from securefl.llm.adapters import Adapted, Lora
from securefl.llm.base import Base, Precision, quiet, require
from securefl.llm.foreign import explained
from securefl.protection import CKKS, SecAgg

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_BYTES: Final[dict[Precision, int]] = {"float32": 4, "bfloat16": 2}
_ADAPTER_BYTES: Final = 4  # adapters, their gradients and what is sent before encoding are float32
_NOISE_BYTES: Final = 8  # sums of clipped gradients are float64
_COUNTED: Final = 2**63  # bytes, and more than any machine has: what an Estimate says fits into 64 bits


class Shape(Struct, frozen=True):
    """A model as one would type it in: Llama's architecture with these sizes. ``shared``: heads of keys and values."""

    hidden: int
    layers: int
    vocabulary: int
    heads: int = 32
    shared: int | None = None
    intermediate: int | None = None


class Setting(Struct, frozen=True):
    """How it would be tuned. ``tokens`` of a sequence; ``batch`` sequences on average in a step of DP-SGD; ``memory``:
    bytes for a piece of a batch. Raises ``BadInput`` for a memory that is none.
    """

    lora: Lora = Lora()
    precision: Precision = "bfloat16"
    clients: int = 9
    tokens: int = 512
    batch: int = 64
    memory: int = 2**30

    def __post_init__(self) -> None:
        if not 1 <= self.memory < _COUNTED:
            raise BadInput(f"memory of {self.memory} bytes: it is above 0 and below {_COUNTED}")


class Estimate(Struct, frozen=True):
    """Bytes, but for the parameters. ``up`` and ``down`` are of one client in a round, beside keys and shares.

    ``record``: what DP-SGD holds of one sequence, activations and its own gradient; ``at_once``: how many sequences fit
    into the memory allowed for them (one at least, however large it is). ``peak``: of a client that trains, base
    included.
    """

    model: str
    parameters: int
    adapters: int
    base: int
    up_secagg: int
    down_secagg: int
    up_ckks: int
    down_ckks: int
    record: int
    at_once: int
    peak: int


def of_config(model: str, setting: Setting) -> Estimate:
    """For a config.json, a folder that has one, or a name on the hub, of which the config alone is fetched.

    Raises ``DataUnavailable`` where there is none, ``BadInput`` for one that is none of a language model, or only with
    code of its own, which is never run.
    """
    require()
    from transformers import AutoConfig

    path = Path(model)
    with quiet(), _understood(model):
        if path.is_file():
            given = json.loads(path.read_text(encoding="utf-8"))
            config = AutoConfig.for_model(given.pop("model_type"), **given)
        else:
            try:
                config = AutoConfig.from_pretrained(model, trust_remote_code=False)
            except OSError as error:
                why = str(error).splitlines()[0][:200]
                raise DataUnavailable(
                    f"the config of {model!r} cannot be had ({why}): name a config.json, or give the sizes instead"
                ) from error
    return _estimate(model, config, setting)


def of_shape(shape: Shape, setting: Setting) -> Estimate:
    """For sizes that were typed in. Raises ``BadInput`` for sizes that do not go together."""
    require()
    from transformers import LlamaConfig

    shared, intermediate = shape.shared or shape.heads, shape.intermediate or 4 * shape.hidden
    numbers = (shape.hidden, shape.layers, shape.vocabulary, shape.heads, shared, intermediate)
    if min(numbers) < 1 or shape.hidden % shape.heads or shape.heads % shared:
        raise BadInput(
            f"sizes {numbers}: all are above 0, hidden is a multiple of heads, and heads of those of keys and values"
        )
    config = LlamaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        vocab_size=shape.vocabulary,
        num_attention_heads=shape.heads,
        num_key_value_heads=shared,
        intermediate_size=intermediate,
    )
    return _estimate(f"{shape.layers} layers of {shape.hidden}", config, setting)


def lines(found: Estimate, setting: Setting) -> Iterator[tuple[str, str]]:
    """Label and text of each line that a person wants to read."""
    share = found.adapters / found.parameters
    yield "model", f"{found.model}: {found.parameters:,} parameters"
    yield (
        "adapters",
        f"rank {setting.lora.rank}: {found.adapters:,} parameters ({share:.2%}), all that is trained and sent",
    )
    yield "base", f"{_size(found.base)} in {setting.precision}, at each client, once"
    for name, up, down in (
        ("secagg", found.up_secagg, found.down_secagg),
        ("ckks", found.up_ckks, found.down_ckks),
    ):
        yield name, f"{_size(up)} up and {_size(down)} down for each client and round"
    yield (
        "DP-SGD",
        (
            f"{_size(found.record)} a sequence of {setting.tokens} tokens: {found.at_once} at once, so "
            f"{math.ceil(setting.batch / found.at_once)} pieces of a batch of {setting.batch}"
        ),
    )
    yield "peak", f"about {_size(found.peak)} of memory at a client that trains"


def _estimate(name: str, config: PretrainedConfig, setting: Setting) -> Estimate:
    with _understood(name):
        module = _without_memory(name, config, setting)
        activations = _activations(config, setting)
    counts = {True: 0, False: 0}
    for one in module.parameters():
        counts[one.requires_grad] += one.numel()
    adapters, whole = counts[True], counts[False]
    secagg = SecAgg().parameters(adapters, setting.clients).layout
    ckks = CKKS().parameters(adapters, setting.clients).layout
    record = adapters * _ADAPTER_BYTES + activations
    at_once = max(1, setting.memory // record)
    up_secagg, up_ckks = (layout.ring.item_bytes * layout.length for layout in (secagg, ckks))
    held = at_once * record + adapters * (3 * _ADAPTER_BYTES + _NOISE_BYTES)
    base = whole * _BYTES[setting.precision]
    if base + held >= _COUNTED:
        raise BadInput(f"{name} takes more memory than any machine has: give smaller sizes")
    return Estimate(
        model=name,
        parameters=whole,
        adapters=adapters,
        base=base,
        up_secagg=up_secagg,
        down_secagg=adapters * _ADAPTER_BYTES,
        up_ckks=up_ckks,
        down_ckks=up_ckks,
        record=record,
        at_once=at_once,
        peak=base + held,
    )


def _without_memory(name: str, config: PretrainedConfig, setting: Setting) -> Adapted:
    from transformers import AutoModelForCausalLM

    with quiet(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
        return Adapted(Base(model.requires_grad_(False), name, "0" * 64, ()), setting.lora, 0, "CAUSAL_LM", None)


def _understood(name: str) -> AbstractContextManager[None]:
    """Around all that a config decides: making it, the model of it, and the numbers that are read from it."""
    return explained(
        name,
        lambda why: BadInput(
            f"{name} is no language model ({why}): the config of one names a model_type and sizes of transformers'"
        ),
    )


def _activations(config: PretrainedConfig, setting: Setting) -> int:
    """Bytes for one sequence, with the logits, which are float32 and have a gradient."""
    size, tokens = _BYTES[setting.precision], setting.tokens
    hidden, heads = config.hidden_size, config.num_attention_heads
    if min(hidden, heads, config.num_hidden_layers, config.vocab_size) < 1:
        raise ValueError("a size below 1")
    layer = tokens * hidden * (34 + 5 * heads * tokens / hidden) * size / 2
    return int(config.num_hidden_layers * layer + 2 * tokens * config.vocab_size * 4)


def _size(count: int) -> str:
    for unit, bound in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= bound:
            return f"{count / bound:.3g} {unit}"
    return f"{count} bytes"
