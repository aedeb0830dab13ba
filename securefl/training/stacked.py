"""A sequence of plain layers with parameters of its own for each of several clients, computed in one pass.

Rows of all clients lie behind each other, as many of each. A layer with parameters is one batched product over clients;
any other takes the rows as they come. No row's result depends on another row, nor on another client's parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from securefl.training.gradients import Gradients, Products, Stack

Parameters = Sequence[torch.Tensor]
"""Each of shape (clients, *shape of the parameter), in the order of the module's own."""

_SIMPLE: Final = (
    *(nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus),
    *(nn.Flatten, nn.Unflatten, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
)
_HOOKS: Final = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_COLUMNS: Final = 8192  # that are float64 at once: they stay in a core's cache


def known(module: nn.Module) -> bool:
    """Whether a module is nothing but layers that are known here, one after the other, all trained, none used twice.

    Known are exact types without hooks: whoever derives from a layer, or hooks on to it, may compute anything.
    """
    found, own = list(_layers(module)), list(module.parameters())
    return (
        all(type(part) is nn.Sequential and _plain(part) for part in module.modules() if any(part.children()))
        and all(_plain(layer) and _is_known(layer) for layer in found)
        and len({id(layer) for layer in found}) == len(found)
        and sum(len(list(layer.parameters())) for layer in found) == len(own) > 0
        and all(each.requires_grad and each.dtype == torch.float32 for each in own)
    )


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    children = list(module.children())
    return chain.from_iterable(map(_layers, _steps(module))) if children else iter([module])


def _steps(module: nn.Module) -> Iterator[nn.Module]:
    """Children as often as they are used, where ``children`` has each once."""
    return (child for child in module._modules.values() if child is not None)


def _plain(module: nn.Module) -> bool:
    return "forward" not in vars(module) and not any(getattr(module, name) for name in _HOOKS)


def _is_known(layer: nn.Module) -> bool:
    match layer:
        case nn.Conv2d():
            numbers = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
            return type(layer) is nn.Conv2d and layer.groups == 1 and numbers
        case nn.Flatten():
            return type(layer) is nn.Flatten and layer.start_dim == 1
        case nn.Unflatten():
            return type(layer) is nn.Unflatten and isinstance(layer.dim, int) and layer.dim >= 1
        case nn.MaxPool2d():
            return type(layer) is nn.MaxPool2d and not layer.return_indices
        case _:
            # In place, a layer would overwrite what the way back needs.
            known = type(layer) in (nn.Linear, nn.GroupNorm, nn.LayerNorm, *_SIMPLE)
            return known and not getattr(layer, "inplace", False)


@dataclass(frozen=True)
class Stacked:
    """The clients' common layers. Raises ``ValueError`` for a module that is not ``known``."""

    module: nn.Module

    def __post_init__(self) -> None:
        if not known(self.module):
            raise ValueError("not a sequence of known layers: train each client by itself")

    def outputs(self, rows: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        """What the clients' models say of their rows: shape (clients * rows of each, ...)."""
        return self._pass(rows, parameters)[0]

    def gradients(self, losses: torch.Tensor, passed: Sequence[_Passed], clients: int) -> list[Gradients]:
        """Those of each row's loss, for all parameters in order; sums of them are one a client, behind each other."""
        ends = torch.autograd.grad(losses.sum(), [one.output for one in passed])
        each = chain.from_iterable(_sampled(one, end) for one, end in zip(passed, ends, strict=True))
        return [ByClient(one, clients) for one in each]

    def recorded(self, rows: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, list[_Passed]]:
        """The outputs, and what passed each layer that has parameters, which do not have gradients of their own."""
        return self._pass(rows, parameters)

    def _pass(self, rows: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, list[_Passed]]:
        passed, left = [], iter(parameters)
        for layer in _layers(self.module):
            own = [next(left) for _ in layer.parameters()]
            if not own:
                rows = layer(rows)
                continue
            one = _through(layer, rows, own)
            # The first layer's output begins the graph where neither records nor parameters are part of one.
            rows = one.output if one.output.requires_grad else one.output.requires_grad_()
            passed.append(one)
        return rows, passed


class _Passed(NamedTuple):
    """A layer in one pass. ``inputs``: what its weights are multiplied by, a matrix or a vector a row."""

    layer: nn.Module
    inputs: torch.Tensor
    output: torch.Tensor


def _through(layer: nn.Module, rows: torch.Tensor, own: Parameters) -> _Passed:
    match layer:
        case nn.Linear():
            return _linear(layer, rows, own)
        case nn.Conv2d():
            return _convolution(layer, rows, own)
        case nn.GroupNorm():
            normal = functional.group_norm(rows, layer.num_groups, eps=layer.eps)
            shape = (rows.shape[1], *(1 for _ in rows.shape[2:]))
        case nn.LayerNorm():
            normal = functional.layer_norm(rows, layer.normalized_shape, eps=layer.eps)
            shape = tuple(layer.normalized_shape)
        case _:
            raise TypeError(f"no rule for {type(layer).__name__}")
    clients, between = len(own[0]), (1,) * (rows.ndim - len(shape))
    output = normal.view(clients, -1, *rows.shape[1:]) * own[0].view(clients, *between, *shape)
    if len(own) == 2:
        output = output + own[1].view(clients, *between, *shape)
    return _Passed(layer, normal.detach(), output.flatten(0, 1))


def _linear(layer: nn.Linear, rows: torch.Tensor, own: Parameters) -> _Passed:
    if rows.ndim < 2 or rows.shape[-1] != layer.in_features:
        raise ValueError(f"a linear layer of {layer.in_features} features was given rows of {tuple(rows.shape[1:])}")
    output = _products(rows.reshape(len(own[0]), -1, layer.in_features), own[0], own[1:])
    return _Passed(layer, rows.detach(), output.reshape(*rows.shape[:-1], layer.out_features))


def _convolution(layer: nn.Conv2d, rows: torch.Tensor, own: Parameters) -> _Passed:
    """As a product with patches: a vendor's grouped convolution may multiply one client's rows by another's zeros, and
    infinity times zero is not a number."""
    if rows.ndim != 4:
        raise ValueError(f"a convolution of rows of {rows.ndim - 1} dimensions: give it three")
    padding = _padding(layer)
    patches = functional.unfold(rows, layer.kernel_size, layer.dilation, padding, layer.stride).mT
    clients, (high, wide) = len(own[0]), _size(layer, rows)
    output = _products(patches.reshape(clients, -1, patches.shape[2]), own[0].flatten(2), own[1:])
    # Channels come last in memory, as they do in the product, and second in the shape.
    output = output.reshape(len(rows), high, wide, layer.out_channels).permute(0, 3, 1, 2)
    return _Passed(layer, patches.detach(), output)


def _size(layer: nn.Conv2d, rows: torch.Tensor) -> tuple[int, int]:
    """Height and width of a convolution's output."""
    high, wide = (
        (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for size, padding, dilation, kernel, stride in zip(
            rows.shape[2:], _padding(layer), layer.dilation, layer.kernel_size, layer.stride, strict=True
        )
    )
    return high, wide


def _padding(layer: nn.Conv2d) -> tuple[int, ...]:
    if isinstance(layer.padding, str):
        raise ValueError("padding in words")  # such a layer is not known
    return layer.padding


def _products(rows: torch.Tensor, weight: torch.Tensor, bias: Parameters) -> torch.Tensor:
    """(clients, n, in) times (clients, out, in), plus (clients, out)."""
    return torch.baddbmm(bias[0][:, None], rows, weight.mT) if bias else torch.bmm(rows, weight.mT)


def _sampled(one: _Passed, end: torch.Tensor) -> list[Stack | Products]:
    """Each row's gradients of a layer's parameters, from the gradient of its output."""
    match one.layer:
        case nn.Linear() if end.ndim == 2:
            found: list[Stack | Products] = [Products(end, one.inputs), Stack(end)]
        case nn.Linear():
            inputs, ends = one.inputs.flatten(1, -2), end.flatten(1, -2)
            found = [Stack(torch.bmm(ends.mT, inputs)), Stack(ends.sum(1))]
        case nn.Conv2d():
            ends = end.flatten(2)
            found = [Stack(torch.bmm(ends, one.inputs)), Stack(ends.sum(2))]
        case nn.GroupNorm():
            found = [Stack((end * one.inputs).flatten(2).sum(2)), Stack(end.flatten(2).sum(2))]
        case _:
            own = next(one.layer.parameters()).shape
            found = [Stack(part.reshape(len(part), -1, *own).sum(1)) for part in (end * one.inputs, end)]
    return found[: len(list(one.layer.parameters()))]


@dataclass(frozen=True)
class ByClient:
    """Gradients of the rows of several clients, as many of each, for a parameter that each has for itself.

    To norms and clipping they are rows like any others. Sums are one a client, behind each other.
    """

    each: Stack | Products
    clients: int

    @property
    def records(self) -> int:
        return self.each.records

    @property
    def size(self) -> int:
        return self.clients * self.each.size

    @property
    def memory(self) -> int:
        return self.each.memory

    def squares(self) -> torch.Tensor:
        return self.each.squares()

    def silenced(self, silent: torch.Tensor) -> ByClient:
        return replace(self, each=self.each.silenced(silent))

    def add_weighted(self, weights: torch.Tensor, total: torch.Tensor) -> None:
        if isinstance(self.each, Products):
            left = self.each.left.double().mul_(weights[:, None])
            sides = (side.view(self.clients, -1, side.shape[1]) for side in (left, self.each.right.double()))
            first, second = sides
            total.view(self.clients, first.shape[2], -1).baddbmm_(first.mT, second)
            return
        rows, by_client = (
            self.each.rows.flatten(1).view(self.clients, -1, self.each.size),
            total.view(self.clients, 1, -1),
        )
        for start in range(0, rows.shape[2], _COLUMNS):
            columns = slice(start, start + _COLUMNS)
            by_client[..., columns].baddbmm_(weights.view(self.clients, 1, -1), rows[..., columns].double())
