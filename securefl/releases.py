"""What one round under a plan releases of a client's data: all that its ledger is charged for it."""

from __future__ import annotations

import math
from typing import Final

from securefl import protection
from securefl.plan import ClientLevel, Plan, Survey
from securefl.privacy.mechanism import DPSGD, NoisedSum, Release, Skellam

# A record adds at most 1 to the count of those predicted right and at most 1, in loss bounds, to the sum of losses; to
# scores it adds 1 in one place. Rounding the sums to the grid of the noise moves them by less than 2**-16 of that.
SCORES_BOUND: Final = 1 + 2.0**-16
METRICS_BOUND: Final = math.sqrt(2) * (1 + 2.0**-16)


def releases(plan: Plan, round: int = 1) -> tuple[Release, ...]:
    """The releases of one round, each of them charged; none where nothing that is released has a bound."""
    if plan.privacy.survey is not None and plan.surveys(round):
        return survey(plan, plan.privacy.survey) if private(plan) else ()
    found: list[Release] = []
    if isinstance(plan.mechanism, DPSGD):
        found.append(plan.mechanism)
    if plan.privacy.held_out is not None and plan.privacy.held_out.noise_multiplier is not None:
        found.append(NoisedSum("metrics", plan.privacy.held_out.noise_multiplier, METRICS_BOUND))
    if plan.privacy.client_level is not None:
        found += sums(plan, plan.privacy.client_level)
    return tuple(found)


def survey(plan: Plan, asked: Survey) -> tuple[Release, ...]:
    """Those of the survey: counts of clients, then those of records where they are asked."""
    clients = Skellam("survey", asked.noise_multiplier, survey_scale(plan), 3 * asked.bins, protection.honest(plan))
    return clients, *(() if asked.scores is None else (NoisedSum("scores", asked.scores, SCORES_BOUND),))


def survey_scale(plan: Plan) -> float:
    """Steps of the encoding in the length of what one client adds to the counts of clients."""
    return 1 / protection.parameters(plan).step


def private(plan: Plan) -> bool:
    """Whether noise bounds what the model reveals of a record or of a client."""
    return isinstance(plan.mechanism, DPSGD) or plan.privacy.client_level is not None


def sums(plan: Plan, level: ClientLevel) -> tuple[Skellam, ...]:
    """Client-level releases, in the order of the coordinates that they cover: updates, then the count for the clip."""
    scale, honest = 1 / protection.parameters(plan).step, protection.honest(plan)
    update = Skellam("update", level.noise_multiplier, scale, plan.dimension, honest)
    if level.adaptive is None:
        return (update,)
    # The count is a sum of +-1/2: half a step in units of the scale is its sensitivity.
    return update, Skellam("clipped", level.adaptive.noise_multiplier, scale / 2, 1, honest)
