"""What a job would do, before anything runs: who could see what, what travels, how exact sums are."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from securefl.calibration import calibrated, plan_of
from securefl.job import Job
from securefl.plan import Plan
from securefl.precision import Facts, facts
from securefl.protection import KINDS, parameters
from securefl.releases import releases

# By how much rounding has to be below the noise of updates to be called lost in it.
_LOST = 1 / 4


class Spending(Struct, frozen=True):
    """What the whole run would be charged, at ``delta``; ``affordable``: rounds like these that fit into an unspent
    budget of ``budget``, without a survey. ``noise_multiplier``: of the updates, written down or solved for;
    ``survey``: whether one is among what is charged.
    """

    unit: str
    noise_multiplier: float
    epsilon: float
    delta: float
    budget: float
    affordable: int
    survey: bool = False


class Preview(Struct, frozen=True):
    """A job as its parties would meet it. ``noise``: the least of any weighted update, as a standard deviation of one
    coordinate; None without differential privacy or declared sizes. ``key_rounds``: sums that one CKKS key decrypts.
    """

    job: str
    protection: str
    visibility: str
    clients: int
    rounds: int
    dimension: int
    encoding: Facts
    noise: float | None
    key_rounds: int
    spending: Spending | None


def preview(job: Job) -> Preview:
    """Build the job's model, load no records, train nothing. Raises ``BadInput`` for a job that could fail later."""
    from securefl import vector

    module = vector.build(job.federation().model, job.model.seed)
    job = calibrated(job, module)
    plan = plan_of(job, module)
    kind = KINDS[plan.protection]
    return Preview(
        job=job.name,
        protection=plan.protection,
        visibility=kind.visibility,
        clients=len(plan.clients),
        rounds=job.rounds,
        dimension=plan.dimension,
        encoding=facts(parameters(plan)),
        noise=job.noise,
        key_rounds=plan.key_rounds,
        spending=_spending(job, plan),
    )


def _spending(job: Job, plan: Plan) -> Spending | None:
    from securefl.privacy.accountant import epsilon
    from securefl.privacy.planning import affordable_rounds

    budget, noise = job.budget, job.privacy.noise_multiplier
    if budget is None or noise is None:
        return None
    unit, released = plan.privacy.unit, releases(plan)
    last = releases(plan, plan.last) if plan.last > plan.rounds else ()
    spent = epsilon((*released * plan.participations, *last), budget.delta, unit)
    most = affordable_rounds(released, budget, unit=unit)
    return Spending(unit, noise, spent, budget.delta, budget.epsilon, most, bool(last))


def lines(found: Preview) -> Iterator[tuple[str, str]]:
    """Label and text of each line that a person wants to read."""
    yield "job", f"{found.job}: {found.clients} clients, {found.rounds} rounds, {found.dimension:,} parameters"
    yield "sees", found.visibility
    yield "encoding", str(found.encoding)
    size = found.encoding.bytes_per_parameter * found.dimension
    yield "traffic", f"about {size / 1000:,.1f} kB up for each client and round, beside keys and shares"
    if found.noise is not None:
        part = found.encoding.step / 2 / found.noise
        beside = "lost in it" if part <= _LOST else "close to it: write a finer precision"
        yield "precision", f"updates carry noise of {found.noise:.2g} or more; rounding is {part:.1g} of it: {beside}"
    if found.spending is not None:
        cost = found.spending
        beside = " and the survey" if cost.survey else ""
        whole = f"{found.rounds} rounds{beside} cost epsilon {cost.epsilon:.3f} at delta {cost.delta:g}"
        fits = f"an unspent budget of {cost.budget:g} has room for {cost.affordable}"
        yield "privacy", f"noise multiplier {cost.noise_multiplier:g}: {whole} for each {cost.unit}; {fits}"
    if found.key_rounds:
        yield "key", f"one CKKS key decrypts at most {found.key_rounds} sums, then clients make another"
