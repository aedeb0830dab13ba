"""DP-SGD steps (Abadi et al., CCS 2016, algorithm 1): clipped sum, noise, descent. The only door to opacus.

Opacus's hooks bring each record's gradient. Clipping, noise and the step are ours: its optimizer adds float32 noise
from torch's generator, which is not cryptographic, and whoever knows that generator's seed removes the noise exactly.

Known limit: a record's gradient is computed in float32 beside others, and its last bits may depend on how many they
are. Parameters for which gradients are nothing but rounding errors make that large. Batches are filled up to multiples
of 16 rows, which ended it where we could produce it; nothing proves that it does so everywhere.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

import torch
from opacus import GradSampleModule
from opacus.grad_sample.functorch import ft_compute_per_sample_gradient
from opacus.validators import ModuleValidator
from torch import nn

from securefl.data import Dataset
from securefl.errors import UnsupportedModel
from securefl.mishaps import LostRecords, Tell, unheard
from securefl.privacy.mechanism import DPSGD
from securefl.privacy.noise import NoisedSums, Random, Words, grid, poisson_sample
from securefl.training.batches import LANES, Batch, device_of, loss, made_up, padded, pieces, single, take
from securefl.training.gradients import Entries, Gradients, Products, Stack, add_clipped

if TYPE_CHECKING:
    from securefl.training.pace import Pace

Mode = Literal["hooks", "ghost"]
"""How gradients are held: all in full, or a linear layer's and an embedding's as what they are made of."""

# Clipping aims this far below the bound, so that a record moves the noised sum by the bound at most. In clips: a
# clipped gradient is too long by 2^-17 at most (``add_clipped``); a float64 sum of n of them errs by n^2 * 2^-53, so
# two of 2^17 differ by 2^-18; the noise's grid moves two sums apart by 2^-16 at most. Together: less than 2^-15.
CLIP_MARGIN = 1 - 2.0**-15

_PROBE = 2  # rows: a layer that takes their number for another's size is then found

_Sampled = dict[torch.Tensor, Gradients]


def problems(module: nn.Module) -> list[Exception]:
    """Why opacus cannot take the module's gradients record by record; nothing if it can."""
    candidate = copy.deepcopy(module).train()
    return [*ModuleValidator.validate(candidate), *GradSampleModule.validate(candidate)]


def descend(
    module: nn.Module,
    data: Dataset,
    mechanism: DPSGD,
    descent: torch.optim.Optimizer,
    random: Random,
    pace: Pace,
    tell: Tell = unheard,
) -> None:
    """Train ``module`` in place by ``mechanism.steps`` noised sums, each handed to ``descent`` as the gradient.

    A sum is divided by the expected batch size, and noised whether its batch is empty or not.
    """
    recorded = Recorded(module, pace.mode)
    # What is wrong with the model itself shows here; what a record makes it do later must not.
    recorded.gradients(made_up(data, _PROBE, device_of(recorded)))
    words = Words("securefl training", random)
    noise = noises(mechanism, recorded.dimension, words)
    for _ in range(mechanism.steps):
        step(recorded, data, mechanism, descent, words, noise, pace)
    recorded.lost.report(tell)


def step(
    recorded: Recorded,
    data: Dataset,
    mechanism: DPSGD,
    descent: torch.optim.Optimizer,
    words: Words,
    noise: NoisedSums,
    pace: Pace,
) -> None:
    """One of them."""
    rows = poisson_sample(len(data), mechanism.sampling_rate, words)
    at_once = max(pace.at_once - pace.at_once % LANES, min(pace.at_once, LANES))
    batches = (take(data, piece, device_of(recorded)) for piece in pieces(rows, at_once))
    total = noised_sum(recorded, batches, mechanism.clip, noise, at_once)
    set_gradients(recorded, total.div_(mechanism.sampling_rate * data.declared_size))
    descent.step()


def noises(mechanism: DPSGD, dimension: int, words: Words) -> NoisedSums:
    """What noises the sums of one training."""
    deviation, whole = mechanism.noise_multiplier * mechanism.clip, grid(mechanism.clip, dimension)
    return NoisedSums(deviation, whole, mechanism.steps, words)


def noised_sum(
    recorded: Recorded, batches: Iterable[Batch], clip: float, noise: NoisedSums, at_once: int = LANES
) -> torch.Tensor:
    """What one step releases: the sum of the records' clipped gradients, on a grid and noised; flat, float64, CPU."""
    total = torch.zeros(recorded.dimension, dtype=torch.float64, device=device_of(recorded))
    for batch in batches:
        _add_batch(recorded, batch, clip * CLIP_MARGIN, total, at_once)
    return torch.from_numpy(noise.noised(total.cpu().numpy()))


def _add_batch(recorded: Recorded, batch: Batch, clip: float, total: torch.Tensor, at_once: int) -> None:
    """One batch's part of the sum. A record on which the model's code fails adds nothing, as one that overflows does:
    if training failed as a whole, that would tell that there is such a record.
    """
    try:
        gradients = recorded.gradients(padded(batch, at_once))
    except Exception as error:
        recorded.forget()
        if len(batch.labels) == 1:
            recorded.lost.add(error)
            return
        for record in single(batch):
            _add_batch(recorded, record, clip, total, at_once)
        return
    add_clipped(gradients, clip, total, len(batch.labels))


def set_gradients(module: nn.Module, flat: torch.Tensor) -> None:
    """Make a flat vector the gradient of the trainable parameters, in their order."""
    parameters = [parameter for _, parameter in trainable(module)]
    for parameter, part in zip(parameters, torch.split(flat, [each.numel() for each in parameters]), strict=True):
        parameter.grad = part.reshape(parameter.shape).to(parameter)


class Recorded(GradSampleModule):  # type: ignore[misc]
    """A module in training whose gradients are taken record by record, in the given mode."""

    def __init__(self, module: nn.Module, mode: Mode) -> None:
        # "sum": gradients are those of each record's own loss, whatever the size of its batch
        super().__init__(module, loss_reduction="sum")
        self.dimension = sum(parameter.numel() for _, parameter in trainable(module))
        self.lost = LostRecords()
        self._mode = mode
        self._ends = list(dict.fromkeys(end for layer in module.modules() for end in self._ends_at(layer)))
        self._sampled: _Sampled = {}

    def gradients(self, batch: Batch) -> list[Gradients]:
        """Those of each record's cross-entropy, for all trainable parameters in order; of one record or more.

        Raises ``UnsupportedModel`` where a layer's gradients are not one a record.
        """
        self._sampled.clear()
        torch.autograd.backward(loss(self, batch), inputs=self._ends)
        return [self._take(name, parameter, len(batch.labels)) for name, parameter in trainable(self._module)]

    def forget(self) -> None:
        """Drop what a pass that failed left behind."""
        for layer in self._module.modules():
            if hasattr(layer, "activations"):
                layer.activations = []
        for _, parameter in trainable(self._module):
            parameter._forward_counter = 0  # type: ignore[attr-defined]
            parameter.grad_sample, parameter.grad = None, None  # type: ignore[attr-defined]
            if hasattr(parameter, "_current_grad_sample"):
                del parameter._current_grad_sample
        self._sampled.clear()

    def _ends_at(self, layer: nn.Module) -> list[nn.Parameter]:
        """Parameters at which going back may end: enough for the hooks to be called at every layer.

        The gradient of a whole batch, which autograd would make for each parameter, is of no use here.
        """
        own = [parameter for parameter in layer.parameters(recurse=False) if parameter.requires_grad]
        return sorted(own, key=torch.Tensor.numel)[:1] if type(layer) in self.GRAD_SAMPLERS else own

    def _take(self, name: str, parameter: nn.Parameter, records: int) -> Gradients:
        stack, parameter.grad_sample, parameter.grad = parameter.grad_sample, None, None  # type: ignore[attr-defined]
        if stack is None and parameter not in self._sampled:
            raise UnsupportedModel(f"parameter {name!r} takes no part in the output: use it, or freeze it")
        found = self._sampled.pop(parameter) if stack is None else Stack(stack)
        if found.records != records:
            raise UnsupportedModel(
                f"parameter {name!r} has {found.records} gradients for {records} records: "
                "keep one record a row, in the first dimension of every layer's input"
            )
        return found

    def capture_backprops_hook(
        self,
        module: nn.Module,
        _forward_input: torch.Tensor,
        forward_output: torch.Tensor,
        loss_reduction: str,
        batch_first: bool,
    ) -> None:
        """What opacus calls at each layer on the way back, with the gradient of the layer's output."""
        own = [parameter for _, parameter in trainable(module)]
        if not all(_used_once(parameter) for parameter in own):
            super().capture_backprops_hook(module, _forward_input, forward_output, loss_reduction, batch_first)
            return
        inputs, backprops = self.rearrange_grad_samples(
            module=module, backprops=forward_output[0].detach(), loss_reduction=loss_reduction, batch_first=batch_first
        )
        del module.max_batch_len
        for parameter, gradients in self._sample(module, inputs, backprops).items():
            if parameter.requires_grad:
                self._sampled[parameter] = gradients
        for parameter in own:
            parameter._forward_counter = 0  # type: ignore[attr-defined]

    def _sample(self, layer: nn.Module, inputs: list[torch.Tensor], backprops: torch.Tensor) -> _Sampled:
        small = _SMALL.get(type(layer)) if self._mode == "ghost" else None
        found = small(layer, inputs[0], backprops) if small else None
        if found is None:
            sampler = self.GRAD_SAMPLERS.get(type(layer), ft_compute_per_sample_gradient)
            found = {parameter: Stack(rows) for parameter, rows in sampler(layer, inputs, backprops).items()}
        return found


def _used_once(parameter: nn.Parameter) -> bool:
    """Whether the layer at hand is all that uses it: else opacus adds up what several uses give."""
    return parameter._forward_counter == 1 and not hasattr(parameter, "_current_grad_sample")  # type: ignore[attr-defined]


def _linear(layer: nn.Module, inputs: torch.Tensor, backprops: torch.Tensor) -> _Sampled | None:
    if not isinstance(layer, nn.Linear) or backprops.ndim != 2:
        return None
    found: _Sampled = {layer.weight: Products(backprops, inputs)}
    if layer.bias is not None:
        found[layer.bias] = Stack(backprops)
    return found


def _embedding(layer: nn.Module, inputs: torch.Tensor, backprops: torch.Tensor) -> _Sampled | None:
    if not isinstance(layer, nn.Embedding):
        return None
    places = inputs.reshape(len(inputs), -1)
    rows = backprops.reshape(*places.shape, layer.embedding_dim)
    return {layer.weight: Entries.gathered(places, rows, layer.num_embeddings)}


_SMALL: dict[type[nn.Module], Callable[[nn.Module, torch.Tensor, torch.Tensor], _Sampled | None]] = {
    nn.Linear: _linear,
    nn.Embedding: _embedding,
}


def trainable(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The trainable parameters by name, in the order of ``named_parameters``."""
    return [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
