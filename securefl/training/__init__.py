"""Local training: (DP-)SGD on one client's records, from a module to a flat update.

Steps and sampling rate come from the mechanism and the declared size of the data set, never from a data loader. DP-SGD
is Abadi et al., CCS 2016, algorithm 1, with Poisson sampling; sums are divided by the *expected* batch size, since the
realised one depends on which records are there.
"""

from __future__ import annotations

import copy
import os
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from securefl import objective, vector
from securefl.data import Dataset
from securefl.errors import BadInput, TrainingFailed, UnsupportedModel
from securefl.mishaps import Tell, unheard
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD, Training
from securefl.privacy.noise import Random, Words, poisson_sample
from securefl.training import private
from securefl.training.batches import device_of, loss, made_up, outputs, pieces, take
from securefl.training.guidance import guide
from securefl.training.pace import Pace, choose
from securefl.training.rehearsal import confirm, rehearse

__all__ = ["Pace", "check", "check_apart", "check_labels", "classes", "tells_two", "train"]


def check(module: nn.Module) -> None:
    """Raise ``UnsupportedModel``, naming layer and fix, for a module that cannot be trained record by record.

    BatchNorm is refused even when frozen: in training it mixes the records of a batch, so that no bound on one
    record's gradient bounds that record's influence. Layers are judged by their type: a ``forward`` that mixes records
    by hand (``x - x.mean(0)``) or uses a parameter for some records only is not noticed, and the guarantee of DP-SGD
    does not cover it.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, _BatchNorm):
            raise UnsupportedModel(
                f"layer {name or 'model'!r} is {type(layer).__name__}, which mixes the records of a batch: "
                "use GroupNorm (or LayerNorm) in its place"
            )
        if getattr(layer, "track_running_stats", False):
            raise UnsupportedModel(
                f"layer {name or 'model'!r} ({type(layer).__name__}) keeps statistics of the records: "
                "set track_running_stats=False"
            )
        if getattr(layer, "max_norm", None) is not None:
            raise UnsupportedModel(
                f"layer {name or 'model'!r} ({type(layer).__name__}) rescales the rows that the records use, without "
                "noise: leave max_norm out"
            )
    for name, parameter in private.trainable(module):
        if parameter.dtype != torch.float32:
            raise UnsupportedModel(
                f"parameter {name!r} is {parameter.dtype}: norms of such gradients are not exact enough to clip by; "
                "use float32"
            )
    if problems := private.problems(module):
        raise UnsupportedModel(f"the model cannot be trained record by record: {problems[0]}")


def classes(module: nn.Module, data: Dataset) -> int:
    """How many outputs the model has for a record of this shape, or for a token of one: counted on a row of zeros."""
    return _outputs_for_nothing(module, data).shape[-1]


def check_labels(module: nn.Module, data: Dataset) -> None:
    """Raise ``BadInput`` for labels that the model has no output for."""
    objective.check_labels(data.labels, _outputs_for_nothing(module, data))


def tells_two(module: nn.Module, data: Dataset) -> bool:
    """Whether it tells one class from another, as its labels do."""
    return data.labels.dtype == np.int64 and data.labels.ndim == 1 and classes(module, data) == 2


def check_apart(module: nn.Module, data: Dataset) -> None:
    """Raise ``UnsupportedModel`` where a row's output depends on the other rows: tried on rows of zeros and ones.

    Finds most of what mixes records, by hand or by a layer such as ``Softmax(dim=0)``; not what does so for some only.
    """
    local = copy.deepcopy(module).eval().to("cpu")
    alone = made_up(data, 3, device_of(local))
    beside = alone._replace(features=alone.features.clone())
    beside.features[1:] = 1
    with torch.no_grad():
        one, other = outputs(local, alone)[0], outputs(local, beside)[0]
    if not torch.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise UnsupportedModel(
            "what the model says of one record depends on the others in its batch: no clipping bounds one record's "
            "influence then; compute each row from that row alone"
        )


def train(
    module: nn.Module,
    data: Dataset,
    mechanism: Training,
    optimizer: LocalOptimizer,
    random: Random = os.urandom,
    device: str = "cpu",
    pace: Pace | None = None,
    tell: Tell = unheard,
    correction: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """The flat update (trained minus given) of one round of local training; ``module`` itself is left as it was.

    All randomness (sampling, noise, dropout) is read from ``random``; torch's own generator ends as it began. Records
    and model go to ``device`` ("cuda"), noise is made on the CPU. ``pace``: instead of the one that is chosen.
    ``tell`` hears, at the owner's, of records on which the model's code failed. ``correction``: added to each step's
    gradient, after its noise; shape (dimension,), and a function of what was released before.

    Guarantee: under ``DPSGD`` the update is a function of ``mechanism.steps`` noised sums as that class describes them,
    an empty batch included, if ``random`` is unpredictable and ``data.declared_size`` is a constant. It depends on the
    records in no other way: whatever the given parameters, no record can make this fail. Under ``SGD``: none.

    Raises ``UnsupportedModel``, ``BadInput`` for labels that the model has no output for and for a device that is not
    there, and, under ``SGD`` only, ``TrainingFailed`` when the update is not finite.
    """
    check(module)
    check_labels(module, data)
    local = _moved(module, device)
    _check_kept(local, data)
    before = vector.flatten(local)
    with torch.random.fork_rng(devices=_generators(local)), warnings.catch_warnings():
        # torch says this wherever hooks meet records that need no gradient, as opacus's always do; it loses nothing
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        rehearse(local, data)
        _descend(local, data, mechanism, optimizer, random, pace, tell, correction)
    confirm(local, before, tell)
    update: NDArray[np.float32] = vector.flatten(local) - before
    if isinstance(mechanism, DPSGD):
        # Failing would tell that there is a record that made it fail, which no noise covers.
        np.nan_to_num(update, copy=False)
        return update
    if not np.isfinite(update).all():
        raise TrainingFailed("training ended in NaN or infinity: lower the learning rate, check the features' scale")
    return update


def _outputs_for_nothing(module: nn.Module, data: Dataset) -> torch.Tensor:
    local = copy.deepcopy(module).eval()
    with torch.no_grad():
        return outputs(local, made_up(data, 1, device_of(local)))


def _moved(module: nn.Module, device: str) -> nn.Module:
    local = copy.deepcopy(module).train()
    try:
        return local.to(device)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"there is no device {device!r} here: use 'cpu', or 'cuda' with a GPU's torch") from error


def _check_kept(module: nn.Module, data: Dataset) -> None:
    """Raise ``UnsupportedModel`` for a module that exchanges its parameters when used.

    The optimizer would go on with those that it was given, and the module never be trained.
    """
    used = copy.deepcopy(module)
    given = private.trainable(used)
    with torch.random.fork_rng(devices=_generators(module)):
        loss(used, made_up(data, 1, device_of(used)))
    for (name, parameter), (_, kept) in zip(private.trainable(used), given, strict=True):
        if parameter is not kept:
            raise UnsupportedModel(f"parameter {name!r} is made anew in forward: make all parameters in __init__")


def _generators(module: nn.Module) -> list[torch.device]:
    """The random generators that training uses beside the CPU's."""
    device = device_of(module)
    return [device] if device.type == "cuda" else []


def _seed(module: nn.Module, seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    for device in _generators(module):
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


def _descend(
    module: nn.Module,
    data: Dataset,
    mechanism: Training,
    optimizer: LocalOptimizer,
    random: Random,
    pace: Pace | None,
    tell: Tell,
    correction: NDArray[np.float32] | None,
) -> None:
    # Before the generator is seeded: measuring uses it, if there is dropout.
    pace = pace or choose(module, data, mechanism)
    _seed(module, int.from_bytes(random(8), "little", signed=True))
    parameters = [parameter for _, parameter in private.trainable(module)]
    descent = torch.optim.SGD(parameters, lr=optimizer.learning_rate, momentum=optimizer.momentum)
    guide(descent, parameters, optimizer, correction)
    if isinstance(mechanism, DPSGD):
        private.descend(module, data, mechanism, descent, random, pace, tell)
        return
    expected, words = mechanism.sampling_rate * data.declared_size, Words("securefl training", random)
    for _ in range(mechanism.steps):
        descent.zero_grad(set_to_none=False)
        for rows in pieces(poisson_sample(len(data), mechanism.sampling_rate, words), pace.at_once):
            (loss(module, take(data, rows, device_of(module))) / expected).backward()  # type: ignore[no-untyped-call]
        descent.step()
