"""What a survey found, as the report has it: noised counts of clients by accuracy, and figures that follow from them.

Only the counts, and the figures of scores, are taken from whoever could read the sum: the coordinator or, under CKKS,
clients, who sign them. How many clients they are of and how much noise they have follows from the plan and from who
took part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from securefl import global_state, survey
from securefl.plan import Plan
from securefl.protection import KINDS
from securefl.report.statement import Absent, Count, Nonnegative, SignedStatement
from securefl.survey import Found

if TYPE_CHECKING:
    from securefl.report.facts import Facts

_MOST: Final = 2.0**32  # of a count: far more than any ring has room for, and far from what float64 cannot square


class Spread(Struct, frozen=True, forbid_unknown_fields=True):
    """Accuracies of one model at the clients, as :class:`securefl.survey.Spread` says."""

    counts: tuple[float, ...]
    mean: Nonnegative
    variance: Nonnegative
    worst: Nonnegative
    quartiles: tuple[Nonnegative, Nonnegative, Nonnegative]


class Surveyed(Struct, frozen=True, forbid_unknown_fields=True):
    """A survey of so many ``clients``; ``deviation``: of each count, by its noise, in clients. ``federated``: of the
    run's model; ``local``: of one that each client trained alone; ``personalised``: of the run's after one more round
    at home. ``auc``, ``calibration``: of the run's model on all clients' held-out records, from noised counts.
    """

    clients: Count
    deviation: Nonnegative
    federated: Spread
    local: Spread
    personalised: Spread
    auc: Nonnegative | Absent
    calibration: Nonnegative | Absent


def of(facts: Facts) -> Surveyed | Absent:
    """What the run's survey found; "unknown" where it is still to come, or nobody told."""
    if facts.plan.privacy.survey is None:
        return "none"
    clients = _clients(facts)
    told = facts.summary.survey if facts.summary else None
    found = _signed(facts) if KINDS[facts.plan.protection].sealed else told
    if found is None or not clients or any(_faults(found, facts.plan)):
        return "unknown"
    noise = survey.deviation(facts.plan, clients)
    federated, local, personalised = (_spread(found, name, clients, noise) for name in survey.MODELS)
    return Surveyed(
        clients,
        noise,
        federated,
        local,
        personalised,
        auc="none" if found.auc is None else found.auc,
        calibration="none" if found.calibration is None else found.calibration,
    )


def told(plan: Plan, statements: Sequence[SignedStatement]) -> tuple[float, ...]:
    """The counts in clients' statements, where all that have any have the same; else nothing."""
    every = {one.statement.surveyed for one in statements if one.statement.surveyed}
    return every.pop() if len(every) == 1 and all(_possible(one, plan) for one in every) else ()


def contradictions(facts: Facts) -> Iterator[str]:
    """A survey in the server's record that is none of the plan's, or not the one that clients signed; and clients that
    signed another than others: all who can read it read the same.
    """
    found = facts.summary.survey if facts.summary else None
    if found is not None:
        yield from (f"the summary's survey {fault}" for fault in _faults(found, facts.plan))
    said = {one.statement.client: one.statement.surveyed for one in facts.statements if one.statement.surveyed}
    for client, counts in said.items():
        if not _possible(counts, facts.plan):
            yield f"{client} states counts of a survey that the plan cannot have led to"
        elif counts != next(iter(said.values())):
            yield f"{client} states other counts of the survey than {next(iter(said))}"
    signed = _signed(facts)
    if facts.summary and signed is not None and (found is None or not _same(found, signed)):
        yield "the summary's survey is not the one that clients signed"
    if found is not None and signed is None and KINDS[facts.plan.protection].sealed:
        yield "the summary has a survey that no client signed, and only clients can have read it"


def _signed(facts: Facts) -> Found | None:
    """What clients found by their statements, where any say so."""
    counts, clients = told(facts.plan, facts.statements), _clients(facts)
    return survey.found(facts.plan, counts, clients) if clients and counts else None


def _possible(counts: tuple[float, ...], plan: Plan) -> bool:
    """Whether clients can have read them: under other protections only the coordinator can."""
    as_planned = len(counts) == global_state.survey_length(plan) and all(abs(count) <= _MOST for count in counts)
    return as_planned and KINDS[plan.protection].sealed


def _same(one: Found, other: Found) -> bool:
    """Two machines may add up scores in another order."""
    counts = [{name: spread.counts for name, spread in each.spread.items()} for each in (one, other)]
    figures = [(each.auc or 0.0, each.calibration or 0.0) for each in (one, other)]
    return counts[0] == counts[1] and all(math.isclose(*pair, abs_tol=1e-9) for pair in zip(*figures, strict=True))


def _clients(facts: Facts) -> int:
    """How many clients were counted; of a sum that nobody could decrypt, none."""
    last = facts.history[-1] if facts.history else None
    return len(last.contributors) if last and facts.plan.surveys(last.round) and not last.void else 0


def _spread(found: Found, model: str, clients: int, deviation: float) -> Spread:
    made = survey.spread(found.spread[model].counts, clients, deviation)
    return Spread(made.counts, made.mean, made.variance, made.worst, made.quartiles)


def _faults(found: Found, plan: Plan) -> Iterator[str]:
    asked = plan.privacy.survey
    if asked is None:
        yield "was not planned"
        return
    if sorted(found.spread) != sorted(survey.MODELS):
        yield "is of other models than the plan's"
    for name, one in sorted(found.spread.items()):
        if len(one.counts) != asked.bins or not all(abs(count) <= _MOST for count in one.counts):
            yield f"has counts of {name} that no sum of {asked.bins} classes gives"
    figures = [value for value in (found.auc, found.calibration) if value is not None]
    if (figures and asked.scores is None) or not all(0 <= value <= 1 for value in figures):
        yield "has figures of scores that no scores give"
