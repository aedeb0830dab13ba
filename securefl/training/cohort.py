"""Local training of many clients of one architecture at once, for engines that have them all in one process.

Each client gets what :func:`securefl.training.train` gives it, up to the rounding of float32: the same reads from its
own random source in the same order, the same samples, clipping, grid and noise. Only the arithmetic is shared.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securefl import vector
from securefl.data import Dataset
from securefl.objective import check_labels, check_outputs, losses
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD, Training
from securefl.privacy.noise import Random, Words, poisson_sample
from securefl.training.batches import LANES, Batch, device_of, made_up
from securefl.training.gradients import add_clipped
from securefl.training.private import CLIP_MARGIN, noises
from securefl.training.stacked import Stacked, known

# Bytes for what is held of one pass.
_MEMORY: Final = 2**25
# Of a client's parameter: itself, its momentum and gradient, the float64 sum, noise and what they are copied through.
_BYTES: Final = 64


@dataclass(frozen=True)
class Member:
    """One of the clients: its records and what all its randomness is read from."""

    data: Dataset = field(repr=False)
    random: Random = field(repr=False)


def fits(module: nn.Module, optimizer: LocalOptimizer) -> bool:
    """Whether clients with this module may be trained together: decided by its layers, and by nothing of any record."""
    return known(module) and descends(optimizer)


def descends(optimizer: LocalOptimizer) -> bool:
    """Whether it is nothing but a learning rate and a momentum."""
    return optimizer == LocalOptimizer(optimizer.learning_rate, optimizer.momentum)


def most(dimension: int) -> int:
    """How many clients with so many parameters are held at once: one at least."""
    return max(1, _MEMORY // (_BYTES * dimension))


def train(
    module: nn.Module,
    members: Sequence[Member],
    mechanism: Training,
    optimizer: LocalOptimizer,
    device: str = "cpu",
) -> list[NDArray[np.float32]]:
    """Each client's flat update of one round, from one module, which is left as it was; for what ``fits``.

    Guarantee: that of :func:`securefl.training.train`, for each client by its own ``random``. No record of one client
    changes another's update but in how float32 rounds. Under ``SGD`` an update may not be finite.

    Raises ``ValueError`` for a module that does not fit, ``UnsupportedModel`` where its outputs do not fit the labels,
    and ``BadInput`` for labels of any client that it has no output for.
    """
    local = copy.deepcopy(module).train().to(device)
    stacked, shape = Stacked(local), members[0].data
    tried = stacked.outputs(*_tried(local, shape))
    check_outputs(tried, made_up(shape, 2, device_of(local)).labels)
    for member in members:
        check_labels(member.data.labels, tried)
    rows = _rows(mechanism, members)
    at_once = min(most(len(vector.flatten(module))), max(1, int(_MEMORY // (rows * _bytes(stacked, shape)))))
    found: list[NDArray[np.float32]] = []
    for start in range(0, len(members), at_once):
        found += _Descent(stacked, members[start : start + at_once], mechanism, optimizer, rows).updates()
    return found


def _rows(mechanism: Training, members: Sequence[Member]) -> int:
    """Rows of one client in a pass: what is expected, in whole lanes. What a sample has beyond goes into another pass.

    So it depends on declared values only by how many rows a product has.
    """
    expected = mechanism.sampling_rate * max(member.data.declared_size for member in members)
    return int(min(-(-expected // LANES) * LANES, 512))


def _tried(module: nn.Module, data: Dataset) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Made-up rows, and parameters of one client."""
    return made_up(data, 2, device_of(module)).features, [each.detach()[None] for each in module.parameters()]


def _bytes(stacked: Stacked, data: Dataset) -> float:
    """Held for one row: what passes the layers, its gradient, and those of the parameters."""
    rows, parameters = _tried(stacked.module, data)
    outputs, passed = stacked.recorded(rows, parameters)
    held = sum(one.memory for one in stacked.gradients(outputs.flatten(1).sum(1), passed, 1))
    return (held + sum(one.inputs.nbytes + 4 * one.output.nbytes for one in passed)) / len(rows)


class _Pass(NamedTuple):
    """``which`` of the clients, by place, and how many; as many rows of each, with zeros behind; which are real."""

    which: slice | torch.Tensor
    clients: int
    batch: Batch
    real: torch.Tensor


class _Descent:
    """One round of a few clients."""

    def __init__(
        self,
        stacked: Stacked,
        members: Sequence[Member],
        mechanism: Training,
        optimizer: LocalOptimizer,
        rows: int,
    ) -> None:
        self._stacked, self._members, self._mechanism, self._rows = stacked, members, mechanism, rows
        self._device = device_of(stacked.module)
        self._words = [Words("securefl training", member.random) for member in members]
        own = [each.detach() for each in stacked.module.parameters()]
        self._parameters = [each.expand(len(members), *each.shape).clone() for each in own]
        self._sizes = [each.numel() for each in own]
        if isinstance(mechanism, DPSGD):
            self._noises = [noises(mechanism, sum(self._sizes), words) for words in self._words]
        self._descent = torch.optim.SGD(self._parameters, lr=optimizer.learning_rate, momentum=optimizer.momentum)
        rate = mechanism.sampling_rate
        self._expected = torch.tensor([rate * member.data.declared_size for member in members], dtype=torch.float64)

    def updates(self) -> list[NDArray[np.float32]]:
        before = self._flat()
        for member in self._members:
            member.random(8)  # what training alone seeds dropout with, of which there is none here
        for _ in range(self._mechanism.steps):
            self._step()
        updates = self._flat() - before
        if isinstance(self._mechanism, DPSGD):
            # Failing would tell that there is a record that made it fail, which no noise covers.
            np.nan_to_num(updates, copy=False)
        return list(updates)

    def _flat(self) -> NDArray[np.float32]:
        flat: NDArray[np.float32] = torch.cat([each.flatten(1) for each in self._parameters], 1).cpu().numpy()
        return flat

    def _step(self) -> None:
        rate = self._mechanism.sampling_rate
        samples = [
            poisson_sample(len(member.data), rate, words)
            for member, words in zip(self._members, self._words, strict=True)
        ]
        if isinstance(self._mechanism, DPSGD):
            sums = self._noised(self.clipped(samples, self._mechanism))
        else:
            sums = self._plain(samples)
        for parameter, total in zip(self._parameters, sums, strict=True):
            parameter.grad = total.reshape(parameter.shape).to(parameter)
        self._descent.step()

    def _plain(self, samples: Sequence[NDArray[np.int64]]) -> list[torch.Tensor]:
        """Of each parameter the clients' gradients."""
        sums = [torch.zeros_like(each) for each in self._parameters]
        for which, _, batch, real in self._passes(samples):
            own = [each[which].detach().requires_grad_() for each in self._parameters]
            found = self._stacked.outputs(batch.features, own)
            share = (real / self._expected[which, None]).to(found).flatten()
            weighed = losses(found, batch.labels)[share > 0] * share[share > 0]
            for total, part in zip(sums, torch.autograd.grad(weighed.sum(), own), strict=True):
                _add(total, which, part)
        return sums

    def clipped(self, samples: Sequence[NDArray[np.int64]], mechanism: DPSGD) -> torch.Tensor:
        """Each client's sum of its sampled records' clipped gradients: float64, shape (clients, dimension)."""
        dimension = sum(self._sizes)
        total = torch.zeros(len(self._members), dimension, dtype=torch.float64, device=self._device)
        for which, clients, batch, real in self._passes(samples):
            found, passed = self._stacked.recorded(batch.features, [each[which] for each in self._parameters])
            counted = losses(found, batch.labels)[real.flatten()]
            part = torch.zeros(clients * dimension, dtype=torch.float64, device=self._device)
            add_clipped(self._stacked.gradients(counted, passed, clients), mechanism.clip * CLIP_MARGIN, part)
            pieces = torch.split(part, [clients * size for size in self._sizes])
            for piece, whole in zip(pieces, torch.split(total, self._sizes, 1), strict=True):
                _add(whole, which, piece.view(clients, -1))
        return total

    def _noised(self, total: torch.Tensor) -> Sequence[torch.Tensor]:
        """Of each parameter the clients' sums on a grid and noised, divided by the batch sizes that are expected."""
        released = torch.empty_like(total, device="cpu")
        for own, clipped, noise in zip(released, total.cpu().numpy(), self._noises, strict=True):
            own.copy_(torch.from_numpy(noise.noised(clipped)))
        return torch.split(released.div_(self._expected[:, None]), self._sizes, 1)

    def _passes(self, samples: Sequence[NDArray[np.int64]]) -> Iterator[_Pass]:
        for start in range(0, max(map(len, samples)), self._rows):
            which = [client for client, sample in enumerate(samples) if len(sample) > start]
            counts = np.array([min(len(samples[client]) - start, self._rows) for client in which])
            batch = made_up(self._members[0].data, len(which) * self._rows, torch.device("cpu"))
            for place, client in enumerate(which):
                rows, data = samples[client][start : start + self._rows], self._members[client].data
                at = slice(place * self._rows, place * self._rows + len(rows))
                batch.features.numpy()[at], batch.labels.numpy()[at] = data.features[rows], data.labels[rows]
            real = torch.from_numpy(np.arange(self._rows) < counts[:, None]).to(self._device)
            everyone = len(which) == len(samples)  # a slice copies nothing
            yield _Pass(
                slice(None) if everyone else torch.tensor(which),
                len(which),
                Batch(*(part.to(self._device) for part in batch)),
                real,
            )


def _add(total: torch.Tensor, which: slice | torch.Tensor, part: torch.Tensor) -> None:
    """To the rows of these clients, in place: an assignment to an index would copy them once more."""
    if isinstance(which, slice):
        total[which].add_(part)
    else:
        total.index_add_(0, which.to(total.device), part)
