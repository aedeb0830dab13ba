"""What a client puts into a round: trains on its records, cuts its update off, measures, and draws its noise.

Everything here happens after the ledger was charged with :func:`securefl.releases.releases`, and does what those say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from securefl import global_state
from securefl.data import Dataset
from securefl.errors import BadInput
from securefl.mishaps import Tell, described, unheard
from securefl.plan import HeldOut, Plan
from securefl.privacy.clientlevel import clipped, noise_share
from securefl.privacy.noise import Random, grid, noised
from securefl.releases import METRICS_BOUND, sums

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Material:
    """A client's own records and code: what it trains on, what it holds out to measure with, and the model's code.

    ``device`` is where torch computes; it changes speed, never a guarantee. ``tell`` hears what goes wrong and must not
    show: it is the owner's own log.
    """

    data: Dataset = field(repr=False)
    model: Callable[[], nn.Module] = field(repr=False)
    held_out: Dataset | None = field(default=None, repr=False)
    device: str = "cpu"
    tell: Tell = field(default=unheard, repr=False)

    def update(
        self,
        plan: Plan,
        start: NDArray[np.float32],
        random: Random,
        correction: NDArray[np.float32] | None = None,
        trained: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32] | NDArray[np.float64]:
        """The vector of one round, before encoding. ``start``: the global vector that the round begins with; ``plan``:
        as it is in that round (:meth:`Plan.at`); ``correction``: as :func:`securefl.training.train` adds it;
        ``trained``: what it would give, where these records were trained on beside others (:mod:`securefl.joint`).

        Guarantee: what :func:`securefl.releases.releases` says of the plan, if ``random`` is unpredictable; for a
        client-level release, once :meth:`noise` is added in the ring.
        """
        own: NDArray[np.float32] | NDArray[np.float64]
        own = trained if trained is not None else self._trained(self.module(plan, start), plan, random, correction)
        behind: list[float] = []
        if plan.privacy.client_level is not None:
            own, within = clipped(own.astype(np.float32), global_state.clip(plan, start))
            behind += [0.5 if within else -0.5] if plan.privacy.client_level.adaptive else []
        if plan.privacy.held_out is not None:
            behind += self._measured(self.module(plan, start), plan.privacy.held_out, random)
        return np.concatenate([own, np.array(behind, own.dtype)]) if behind else own

    def noise(self, plan: Plan, random: Random) -> NDArray[np.int64] | None:
        """This client's share of the client-level noise, in whole steps of the plan's encoding; None without."""
        level = plan.privacy.client_level
        return None if level is None else noise_share(sums(plan, level), random)

    def module(self, plan: Plan, start: NDArray[np.float32]) -> nn.Module:
        """The model that a round begins with."""
        from securefl import vector

        module = vector.build(self.model, plan.model_seed)
        vector.load(module, global_state.parameters(plan, start))
        return module

    def _trained(
        self, module: nn.Module, plan: Plan, random: Random, correction: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        from securefl import training

        try:
            return training.train(
                module,
                self.data,
                plan.mechanism,
                plan.optimizer,
                random,
                device=self.device,
                tell=self.tell,
                correction=correction,
            )
        except Exception as error:
            if plan.privacy.client_level is None:
                raise
            # Whatever the model's code did: staying away would tell that it failed, which no noise covers.
            self.tell(f"training failed, and nothing but noise was sent in place of an update: {described(error)}")
            return np.zeros(plan.dimension, np.float32)

    def _measured(self, module: nn.Module, held_out: HeldOut, random: Random) -> list[float]:
        """Accuracy and loss, in loss bounds, of the model on the held-out records; noised unless exact ones are wanted.

        Divided by the declared size: the realised one depends on which records are there.
        """
        from securefl import evaluation

        if self.held_out is None:
            raise BadInput("the plan measures on held-out records and this client has none: give it some")
        found = evaluation.sums(module, self.held_out, held_out.loss_bound, self.tell)
        if held_out.noise_multiplier is not None:
            deviation = held_out.noise_multiplier * METRICS_BOUND
            found = noised(found, deviation, grid(METRICS_BOUND, len(found)), random)
        return [float(value) for value in found / self.held_out.declared_size]
