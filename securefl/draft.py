"""From what one party proposes to the plan that all of them see: the model's shape and the clients filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from protocols.errors import ConfigurationError
from securefl import global_state, protection
from securefl.errors import BadInput
from securefl.learning import ALL, PLAIN, Cohort, Strategy
from securefl.plan import LocalOptimizer, Plan, PrivacyTerms
from securefl.privacy.mechanism import Training
from securefl.protection import Protection

if TYPE_CHECKING:
    from torch import nn

    from securefl.job import Job


def of_job(job: Job) -> Draft:
    """What a job proposes, its noise given."""
    return Draft(
        job.name,
        job.shield,
        job.rounds,
        job.mechanism,
        job.optimizer,
        job.declared_weights,
        job.model.seed,
        job.terms,
        job.server_step,
        job.asked,
    )


@dataclass(frozen=True)
class Draft:
    """A plan without its clients and its model. ``weights``: by client; who is not named has 1."""

    job: str
    protection: Protection
    rounds: int
    mechanism: Training
    optimizer: LocalOptimizer
    weights: Mapping[str, float]
    seed: int
    privacy: PrivacyTerms
    strategy: Strategy = PLAIN
    cohort: Cohort = ALL

    def plan(self, module: nn.Module, clients: Sequence[str]) -> Plan:
        """The plan for these clients. Raises ``BadInput`` for one that could fail later."""
        from securefl import training, vector

        training.check(module)
        return self.shaped(vector.architecture(module), len(vector.flatten(module)), clients)

    def shaped(self, architecture: str, dimension: int, clients: Sequence[str]) -> Plan:
        """The same, for a model that is known by its hash and size only."""
        if unknown := sorted(set(self.weights) - set(clients)):
            raise BadInput(f"weights name clients that are not on the roster: {', '.join(unknown)}")
        chosen, count = self.protection, len(clients)
        plan = Plan(
            job=self.job,
            protection=chosen.kind,
            clients=tuple(clients),
            weights=tuple(self.weights.get(name, 1.0) for name in clients),
            bound=1.0 if self.privacy.client_level else chosen.bound,  # client-level updates are in clips
            minimum=chosen.minimum_of(self.cohort.expected(count)),
            threshold=chosen.threshold,
            rounds=self.rounds,
            mechanism=self.mechanism,
            optimizer=self.optimizer,
            architecture=architecture,
            dimension=dimension,
            model_seed=self.seed,
            colluders=chosen.colluders,
            corrupt=chosen.corrupt,
            dropout=chosen.dropout,
            key_rounds=chosen.key_rounds_of(count),
            privacy=self.privacy,
            strategy=self.strategy,
            cohort=self.cohort,
        )
        return replace(plan, bits=self._bits(plan))

    def _bits(self, plan: Plan) -> int:
        chosen = replace(self.protection, bound=plan.bound)
        try:
            return chosen.parameters(global_state.sent(plan), plan.largest, protection.ring_noise(plan)).bits
        except ConfigurationError as error:
            raise BadInput(str(error)) from error
