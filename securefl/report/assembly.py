"""A run's report from its facts: what the clients signed, the plan, and the server's record. No I/O, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

from msgspec.structs import astuple

from securefl import precision, settings
from securefl.peers.words import visibility
from securefl.plan import Plan
from securefl.privacy import accountant
from securefl.privacy.mechanism import NEIGHBOURS, SGD, Mechanism
from securefl.protection import KINDS, parameters, rules
from securefl.records import RoundRecord
from securefl.releases import releases
from securefl.report import audited, claims, contradictions, declared, hazards, parties, status, surveyed, view
from securefl.report.document import (
    Accounting,
    Aggregation,
    Audience,
    Claim,
    Data,
    HeldOut,
    Owner,
    Released,
    Report,
    Round,
    Run,
    Software,
    Training,
    Utility,
    View,
)
from securefl.report.facts import Facts
from securefl.report.statement import Absent, Epsilon, SignedStatement, Unknown

T = TypeVar("T")


def assemble(facts: Facts, software: Software, created: str = "unknown", violations: Sequence[str] = ()) -> Report:
    """The report, not yet endorsed. ``created``: UTC, ISO 8601. ``violations``: what else was found false, in words.

    Epsilons of the claims are computed here from the charges that clients signed; a client without a statement has
    none, and its figures are the server's copy. Where two accountants disagree, that is a contradiction.
    """
    plan, tested = facts.plan, _tested(facts)
    told = facts.summary.hazards if facts.summary else ()
    run_on = (declared.of_engine(facts.engine),)
    every = hazards.merged(hazards.of_plan(plan, tested), declared.of_data(facts.job.data), run_on, told)
    owners = tuple(_owner(facts, client) for client in plan.clients)
    found = (*violations, *contradictions.found(facts), *audited.contradictions(facts.audit, plan, facts.job.budget))
    statements = [signed.statement for signed in facts.statements]
    return Report(
        created=created,
        run=_run(facts),
        status=status.of(facts, owners, every, found),
        hazards=every if facts.summary else "unknown",
        owners=owners,
        federation=claims.of_federation(statements, plan) if len(statements) == len(plan.clients) else (),
        training=_training(plan),
        accounting=_accounting(),
        audit="none" if facts.audit is None else audited.summarised(facts.audit),
        utility=_utility(facts),
        rounds=tuple(_round(record) for record in facts.history),
        aggregation=_aggregation(facts),
        sights=parties.sights(plan, tested, settings.in_turn(facts.engine)),
        server_view=_view(facts),
        traffic=facts.traffic,
        data=_data(facts),
        software=software,
        statements=facts.statements,
        signatures=(),
    )


def _tested(facts: Facts) -> bool:
    return any(record.accuracy is not None for record in facts.history)


def _or_none(value: T | None) -> T | Absent:
    return "none" if value is None else value


def _run(facts: Facts) -> Run:
    plan, summary = facts.plan, facts.summary
    return Run(
        id=summary.id if summary else "unknown",
        job=plan.job,
        plan=plan.digest().hex(),
        model=summary.model_sha256 if summary else "unknown",
        architecture=plan.architecture,
        dimension=plan.dimension,
        seed=str(plan.model_seed),
        clients=plan.clients,
        weights=dict(zip(plan.clients, plan.weights, strict=True)),
        rounds_planned=facts.job.rounds,
        rounds_done=min(len(facts.history), facts.job.rounds),  # a survey comes after them
        seconds=sum(record.seconds for record in facts.history) if facts.history else "unknown",
    )


def _owner(facts: Facts, client: str) -> Owner:
    signed = next((one for one in facts.statements if one.statement.client == client), None)
    return _silent(facts, client) if signed is None else _stated(signed, facts.plan)


def _stated(signed: SignedStatement, plan: Plan) -> Owner:
    said = signed.statement
    return Owner(
        client=said.client,
        source="signed statement",
        data=said.data,
        fingerprints=said.fingerprints,
        budget=said.budget,
        ledger=said.ledger,
        before=said.before,
        after=said.after,
        epsilon_before=said.epsilon_before,
        epsilon_after=said.epsilon_after,
        refused=said.refused,
        simulated=said.simulated,
        released=tuple(Released(release, times) for release, times in Counter(said.releases).items()),
        witnesses=tuple(sorted(said.witnessed)),
        claims=claims.of_client(said, plan),
        software=said.software,
    )


def _silent(facts: Facts, client: str) -> Owner:
    return Owner(
        client=client,
        source="the server's copy",
        data=facts.job.data.name,
        fingerprints="unknown",
        budget="unknown" if settings.apart(facts.engine) else _or_none(facts.job.budget),
        ledger="unknown",
        before="unknown",
        after="unknown",
        epsilon_before="unknown",
        epsilon_after=_last_told(facts.history, client) if facts.job.budget else "none",
        refused="unknown",
        simulated="unknown",
        released="unknown",
        witnesses="unknown",
        claims=tuple(_unstated(facts, audience) for audience in claims.AUDIENCES),
        software="unknown",
    )


def _last_told(history: Sequence[RoundRecord], client: str) -> Epsilon:
    told = [record.epsilon[client] for record in history if client in record.epsilon]
    return claims.figure(told[-1]) if told else "unknown"


def _unstated(facts: Facts, audience: Audience) -> Claim:
    unit, budget = facts.plan.privacy.unit, facts.job.budget
    return Claim(
        audience=audience,
        unit=unit,
        neighbours=NEIGHBOURS[unit],
        epsilon="unknown" if budget else "none",
        delta=budget.delta if budget else "none",
        cross_check="unknown" if budget else "none",
        accountant="unknown" if budget else "none",
        why="There is no signed statement of what this client charged.",
    )


def _training(plan: Plan) -> Training:
    rate, steps = plan.mechanism.sampling_rate, plan.mechanism.steps
    planned: tuple[Mechanism, ...] = releases(plan)
    without = (plan.mechanism,) if isinstance(plan.mechanism, SGD) else ()
    poisson = f"Poisson: each record is in each step with chance {rate:g}, independently"
    chance = "None: every record is in every step" if rate == 1 else poisson
    sampling = f"{chance}; {steps} step{'s' * (steps > 1)} a round. {_asked(plan)}"
    return Training((*without, *planned), sampling, plan.optimizer.learning_rate, plan.optimizer.momentum)


def _asked(plan: Plan) -> str:
    if plan.cohort.size is None:
        return "Of the clients, all are asked in every round."
    chance = "each by itself, so that about" if plan.cohort.sampling == "poisson" else "at random"
    return (
        f"Of the clients, {chance} {plan.cohort.size + plan.cohort.extra} are asked in a round; the server chooses and "
        f"sees whom, so that no privacy is claimed from it."
    )


def _accounting() -> Accounting:
    return Accounting(
        package="dp-accounting",
        version=accountant.version(),
        decides="Privacy loss distributions (PLD); Renyi divergences (RDP) where client-level noise is charged.",
        cross_check="RDP where PLD decides, which must not lie below it; else another implementation of RDP, "
        "which must agree.",
    )


def _utility(facts: Facts) -> Utility:
    accuracies = [record.accuracy for record in facts.history if record.accuracy is not None]
    if facts.summary is None:
        last: float | Unknown = accuracies[-1] if accuracies else "unknown"
        return Utility(last, "unknown", "unknown", survey=surveyed.of(facts))
    found = facts.summary
    accuracy, twin = _or_none(found.accuracy), _or_none(found.accuracy_centralised)
    return Utility(accuracy, twin, "unknown", found.metrics, found.metrics_unit, surveyed.of(facts))


def _round(record: RoundRecord) -> Round:
    measured = record.held_out
    return Round(
        round=record.round,
        attempt=record.attempt,
        contributors=record.contributors,
        dropped=record.dropped,
        recovered=record.recovered,
        void=record.void,
        accuracy=_or_none(record.accuracy),
        held_out="none" if measured is None else HeldOut(measured.accuracy, measured.loss),
        epsilon={client: claims.figure(value) for client, value in record.epsilon.items()},
        bytes_up=_mean(record.upload_bytes),
        bytes_down=_mean(record.download_bytes),
        seconds=record.seconds,
    )


def _mean(sizes: Mapping[str, int]) -> float:
    return sum(sizes.values()) / len(sizes) if sizes else 0.0


def _aggregation(facts: Facts) -> Aggregation:
    plan, kind = facts.plan, KINDS[facts.plan.protection]
    return Aggregation(
        protection=plan.protection,
        visibility=visibility(plan.protection) if settings.in_turn(facts.engine) else kind.visibility,
        threat_model=parties.threat_model(plan, settings.in_turn(facts.engine)),
        assumptions=parties.assumptions(plan),
        minimum=plan.minimum,
        threshold=rules(plan).threshold_for(plan.largest) if kind.masked else "none",
        colluders=plan.colluders,
        bound=plan.bound,
        encoding=str(precision.facts(parameters(plan))),
        key_rounds=plan.key_rounds or "none",
        lost=sum(len(record.dropped) for record in facts.history),
        recovered=sum(len(record.recovered) for record in facts.history),
    )


def _view(facts: Facts) -> View | Unknown:
    """Counted here from the transcript, and not taken from what the server says of itself."""
    if facts.summary is None:
        return "unknown"
    return View(*astuple(view.server_view(facts.plan, len(facts.history), facts.traffic, facts.engine)))


def _data(facts: Facts) -> Data:
    data = facts.job.data
    source = f"pilot {data.pilot}" if data.pilot else f"loaded by {data.loader}"
    test = f"{data.test or source}, declared public" if _tested(facts) else "none"
    prepared = "as the pilot declares, among the hazards" if data.pilot else "unknown"
    return Data(data.name, source, prepared, test, facts.plan.privacy.disjoint)
