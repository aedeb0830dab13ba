"""The server's own record of a run (job, history, summary), which nobody signs, against the plan and the statements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from securefl import draft, settings
from securefl.job import Job
from securefl.plan import Plan
from securefl.privacy.mechanism import Budget
from securefl.records import participation
from securefl.report import declared, hazards, view
from securefl.report.facts import Facts
from securefl.report.statement import Absent, Statement
from securefl.run_folder import ENGINE, HISTORY, JOB, PLAN, SUMMARY
from securefl.stopping import plateaued

_ROUNDING: Final = 1e-6


def mismatches(facts: Facts) -> Iterator[str]:
    """A line for each thing that the server's record and what was signed do not both say."""
    yield from _history(facts)
    yield from _job(facts)
    yield from _summary(facts)


def _history(facts: Facts) -> Iterator[str]:
    """Rounds that the protocol cannot have completed; or, in a finished run, that are missing.

    Else a history without contributors would need no signature under the report.
    """
    plan, rounds = facts.plan, facts.history
    for place, record in enumerate(rounds, start=1):
        if record.round != place:
            yield f"{HISTORY}: round {record.round} stands where round {place} should"
        if len(set(record.contributors).intersection(plan.clients)) < max(plan.minimum, len(record.contributors)):
            yield f"{HISTORY}: round {record.round} has not {plan.minimum} or more contributors, all of the plan"
    if facts.summary is None:
        return
    stopped = facts.job.stopping is not None and plateaued(rounds, facts.job.stopping)
    if len(rounds) != plan.last and not (stopped and len(rounds) < plan.rounds):
        yield f"{HISTORY}: {len(rounds)} rounds of {facts.job.rounds}, and a summary as of a finished run"
    for said in _statements(facts):
        if missing := sorted({charge.round for charge in said.charges if not 0 < charge.round <= len(rounds)}):
            yield f"{HISTORY}: {said.client} charged round {missing[0]}, which is not in it"


def _job(facts: Facts) -> Iterator[str]:
    planned = _planned(facts.job, facts.plan)
    for name in Plan.__struct_fields__:
        if getattr(planned, name) != getattr(facts.plan, name):
            yield f"{JOB}: gives another {name} than {PLAN}"
    if settings.apart(facts.engine):  # what they allow, and what they call their data, is for owners to say
        return
    budget: Budget | Absent = facts.job.budget or "none"
    data = facts.job.data.pilot or facts.job.data.name  # in ledgers, a pilot's data has the pilot's name
    for said in _statements(facts):
        if said.budget != budget:
            yield f"{JOB}: the budget is {_words(budget)}, and {said.client} states {_words(said.budget)}"
        if said.ledger != "none" and said.data != data:
            yield f"{JOB}: the data set is {data}, and {said.client} states {said.data}"


def _planned(job: Job, plan: Plan) -> Plan:
    """What the job makes of the plan; only its model is taken as it is."""
    return draft.of_job(job).shaped(plan.architecture, plan.dimension, sorted(job.clients))


def _words(budget: Budget | Absent) -> str:
    return f"epsilon {budget.epsilon:g} at delta {budget.delta:g}" if isinstance(budget, Budget) else budget


def _summary(facts: Facts) -> Iterator[str]:
    """Every figure that follows from the history, and epsilons below what clients state.

    Above it they may be: the summary counts what was charged for other runs meanwhile.
    """
    said, rounds = facts.summary, facts.history
    if said is None:
        return
    apart = settings.apart(facts.engine)
    budget = None if apart else facts.job.budget
    spent = facts.plan.clients if budget else ()
    if apart:  # nobody but owners knows: those who stated it
        spent = tuple(one.client for one in _statements(facts) if isinstance(one.epsilon_after, float))
    each = len(facts.plan.clients) * max(len(rounds), 1)
    found = replace(
        said,
        rounds=min(len(rounds), facts.plan.rounds),
        participation=participation(facts.plan, rounds),
        protection=facts.plan.protection,
        dropouts_recovered=sum(len(record.recovered) for record in rounds),
        upload_bytes=sum(sum(record.upload_bytes.values()) for record in rounds) // each,
        download_bytes=sum(sum(record.download_bytes.values()) for record in rounds) // each,
        seconds=sum(record.seconds for record in rounds),
        budget_epsilon=budget.epsilon if budget else None,
        delta=budget.delta if budget else None,
        epsilon=max(said.epsilon_by_client.values(), default=None),
        server_view=view.server_view(facts.plan, len(rounds), facts.traffic, facts.engine),
        hazards=tuple(map(hazards.of, said.hazards)),
    )
    for name in said.__struct_fields__:
        if getattr(said, name) != getattr(found, name):
            yield f"{SUMMARY}: {name} is {getattr(said, name)} and comes to {getattr(found, name)}"
    for one in declared.of_run(facts.job, facts.engine):
        if one not in said.hazards:
            yield f"{SUMMARY}: leaves out a hazard that {JOB} or {ENGINE} implies: {one.text}"
    if set(said.epsilon_by_client) != set(spent):
        yield f"{SUMMARY}: has epsilons of other clients than have a budget"
    for stated in _statements(facts):
        least = stated.epsilon_after if isinstance(stated.epsilon_after, float) else 0.0
        if said.epsilon_by_client.get(stated.client, 0.0) < least * (1 - _ROUNDING):
            yield f"{SUMMARY}: the epsilon of {stated.client} is below the {least:.6g} that it states"


def _statements(facts: Facts) -> Iterator[Statement]:
    return (signed.statement for signed in facts.statements)
