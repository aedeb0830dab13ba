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
from securefl.privacy.mechanism import Skellam
from securefl.privacy.noise import Random, grid, noised
from securefl.releases import METRICS_BOUND, sums
from securefl.releases import survey as survey_of

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
        behind += [0.0] * global_state.survey_length(plan)
        return np.concatenate([own, np.array(behind, own.dtype)]) if behind else own

    def survey(self, plan: Plan, start: NDArray[np.float32], random: Random) -> NDArray[np.float64]:
        """The vector of the round that surveys: nothing but what this client counts (:mod:`securefl.survey`).

        Guarantee: as for ``update``.
        """
        from securefl import survey

        found = np.zeros(global_state.sent(plan))
        asked = plan.privacy.survey
        if asked is not None and self.held_out is not None:
            module = self.module(plan, start)
            counted = survey.counts(
                module, lambda: self._fresh(plan), plan, asked, self.data, self.held_out, random, self.tell
            )
            found[plan.dimension + len(global_state.extras(plan)) :] = counted
        return found

    def noise(self, plan: Plan, random: Random, round: int = 1) -> NDArray[np.int64] | None:
        """This client's share of distributed noise, in whole steps of the plan's encoding; None without."""
        level, asked = plan.privacy.client_level, plan.privacy.survey
        if asked is not None and plan.surveys(round):
            clients = [each for each in survey_of(plan, asked) if isinstance(each, Skellam)]
            start = plan.dimension + len(global_state.extras(plan))
            return _placed(noise_share(clients, random), start, global_state.sent(plan))
        return None if level is None else _placed(noise_share(sums(plan, level), random), 0, global_state.sent(plan))

    def _fresh(self, plan: Plan) -> nn.Module:
        from securefl import vector

        return vector.build(self.model, plan.model_seed)

    def module(self, plan: Plan, start: NDArray[np.float32]) -> nn.Module:
        """The model that a round begins with."""
        from securefl import vector

        module = self._fresh(plan)
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


def _placed(noise: NDArray[np.int64], start: int, length: int) -> NDArray[np.int64]:
    """The same in a vector of zeros."""
    found = np.zeros(length, np.int64)
    found[start : start + len(noise)] = noise
    return found
