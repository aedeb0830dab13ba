"""Text by a tuned model: of a run, sampled token by token."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from msgspec import Struct
from safetensors import SafetensorError
from safetensors.torch import load_file

from securefl import job as jobs
from securefl import vector
from securefl.errors import BadInput, NotARun
from securefl.llm.adapters import Adapted
from securefl.llm.base import quiet
from securefl.run_folder import JOB, MODEL


class Sampling(Struct, frozen=True):
    """``most`` tokens; ``temperature`` 0 takes the likeliest always, 1 samples as the model says. ``seed`` None: anew.

    Raises ``BadInput`` for what is none.
    """

    most: int = 100
    temperature: float = 0.8
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.most < 1 or not 0 <= self.temperature < float("inf"):
            raise BadInput(f"{self.most} tokens at temperature {self.temperature}: one token at least, and 0 or more")


def tuned(run: Path) -> Adapted:
    """The language model of a finished run. Raises ``NotARun`` where there is none, ``BadInput`` for another model."""
    if not (run / JOB).is_file():
        raise NotARun(f"{run} is not the folder of a run: it has no {JOB}")
    job = jobs.load(run / JOB)
    module = vector.build(job.federation().model, job.model.seed)
    if not isinstance(module, Adapted):
        raise BadInput(f"the model of {run} is no language model: securefl generate is for those of securefl.llm")
    file = next(_files(run), None)
    if file is None:
        raise NotARun(f"{run} has no {MODEL} yet: securefl resume {run} continues until it is written")
    try:
        module.load_state_dict(load_file(file), strict=False)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise NotARun(f"{file} is not the model of this run ({error}): restore it from a backup") from error
    return module.eval()


def sampled(module: Adapted, prompt: str, sampling: Sampling) -> str:
    """What the model answers to ``prompt``, a question; up to the token that ends a text, or to ``most``.

    Raises ``BadInput`` for a model that says classes or has no tokenizer, and for a prompt that leaves no room.
    """
    if module.text is None or not module.speaks:
        raise BadInput(
            "this model says classes, or its factory gave no tokenizer: build it with llm.causal(..., text=)"
        )
    asked = module.text.encode(f"{prompt}\n")
    room = module.room - len(asked)
    if room < 1:
        raise BadInput(f"a prompt of {len(asked)} tokens: the model sees {module.room} in all, so shorten it")
    tokens = torch.tensor([asked])
    options = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0} if sampling.temperature else {}
    seed = int.from_bytes(os.urandom(7)) if sampling.seed is None else sampling.seed
    with quiet(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        found = module.peft.get_base_model().generate(  # type: ignore[operator]
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=min(sampling.most, room),
            pad_token_id=module.pad,
            eos_token_id=module.text.end,
            **options,
        )
    said = found[0, len(asked) :].tolist()
    return module.text.decode(said[: said.index(module.text.end)] if module.text.end in said else said)


def _files(run: Path) -> Iterator[Path]:
    """Where the server cannot read the model, clients have written it down."""
    yield from (path for path in (run / MODEL, *sorted(run.glob(f"clients/*/{MODEL}"))) if path.is_file())
