"""From a target to the noise: the least that keeps a whole run within it, solved once and written into the job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from protocols.encoding.quantise import FEWEST_LEVELS
from securefl import draft
from securefl.errors import BadInput
from securefl.job import Job, checks
from securefl.plan import Plan
from securefl.privacy.mechanism import Budget, Release, Skellam
from securefl.releases import releases

if TYPE_CHECKING:
    from torch import nn

_ANY_NOISE = 1.0


def calibrated(job: Job, module: nn.Module) -> Job:
    """The job with its noise filled in; itself where the noise is written down. ``module`` gives the dimension.

    Raises ``BadInput`` where no noise keeps so many rounds within the target, or for a job that could fail later.
    """
    if job.calibrated:
        return job
    from securefl.privacy.planning import calibrate

    def at(noise: float) -> Sequence[Release]:
        return _released(_with_noise(job, noise), module)

    given = job.budget
    if given is None:
        raise BadInput("a job without a budget has nothing to solve its noise for: write privacy.epsilon and delta")
    target = Budget(min(job.privacy.target_epsilon or given.epsilon, given.epsilon), given.delta)
    found = _with_noise(
        job,
        calibrate(
            at,
            min(job.rounds, job.cohort.participations or job.rounds),
            target,
            _of_survey(job, module),
            job.privacy.unit,
        ),
    )
    checks.check(found)
    return found


def _of_survey(job: Job, module: nn.Module) -> Sequence[Release]:
    """What the survey is charged, whose noise is given; it hardly depends on the noise that is solved for."""
    if job.survey is None:
        return ()
    plan = plan_of(_with_noise(job, _ANY_NOISE), module)
    return releases(plan, plan.last)


def _released(job: Job, module: nn.Module) -> Sequence[Release]:
    """What one round is charged; where so much noise has no room in the encoding, under the coarsest scale there is.

    So that costs fall as noise grows, all the way; a plan with such noise is refused in the end.
    """
    try:
        return releases(plan_of(job, module))
    except BadInput:
        level = job.terms.client_level
        if level is None:
            raise
        dimension = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
        return (Skellam("update", level.noise_multiplier, float(FEWEST_LEVELS), dimension, 1),)


def _with_noise(job: Job, noise: float) -> Job:
    return replace(job, privacy=replace(job.privacy, noise_multiplier=noise, target_epsilon=None))


def plan_of(job: Job, module: nn.Module) -> Plan:
    """The plan that the job would run under, its noise given. Raises ``BadInput`` for one that could fail later."""
    return draft.of_job(job).plan(module, sorted(job.clients))
