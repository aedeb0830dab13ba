"""What in a run's statements cannot be true together with the plan, the server's record, or each other.

One line each, naming the client. Finding none proves consistency, not that a site did what it says.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from protocols.errors import Forged
from securefl.plan import Plan
from securefl.privacy.mechanism import COARSENESS, NEIGHBOURS, Budget
from securefl.records import RoundRecord, Summary
from securefl.releases import releases
from securefl.report import arithmetic, heads, surveyed
from securefl.report.arithmetic import Unanswered
from securefl.report.claims import as_planned
from securefl.report.facts import Facts
from securefl.report.statement import Epsilon, Head, SignedStatement, Statement, opened

# Two installations of the accountant may round apart by this much of an epsilon; no real charge is so small.
_ROUNDING: Final = 1e-6


def found(facts: Facts) -> Iterator[str]:
    """Every contradiction in a run folder's facts; two accountants that disagree on charges are one."""
    statements = [signed.statement for signed in facts.statements]
    yield from _repeated(statements)
    yield from _disagreements(statements, facts.summary)
    yield from heads.contradictions(statements)
    yield from surveyed.contradictions(facts)
    for signed in facts.statements:
        yield from _forged(signed)
        yield from _foreign(signed.statement, facts.plan)
        yield from _uncharged(signed.statement, facts.plan, facts.history)
        yield from _miscounted(signed.statement, facts.plan)
        yield from (f"{signed.statement.client} says: {doubt}" for doubt in signed.statement.doubts)


def _repeated(statements: Sequence[Statement]) -> Iterator[str]:
    counts = Counter(one.client for one in statements)
    yield from (f"{client} signed {count} statements on one run" for client, count in counts.items() if count > 1)


def _disagreements(statements: Sequence[Statement], summary: Summary | None) -> Iterator[str]:
    if summary is None:
        return
    for one in statements:
        if one.run != summary.id:
            yield f"{one.client} signed a statement on another run, {one.run}"
        if one.model not in (summary.model_sha256, "unknown"):
            yield f"{one.client} holds another final model than the summary names"


def _forged(signed: SignedStatement) -> Iterator[str]:
    try:
        opened(signed)
    except Forged as error:
        yield f"{signed.statement.client}: {error}"


def _foreign(statement: Statement, plan: Plan) -> Iterator[str]:
    client = statement.client
    if client not in plan.clients:
        yield f"{client} is not in the plan"
    if statement.plan != plan.digest().hex():
        yield f"{client} took part under another plan"
    if statement.neighbours != NEIGHBOURS[statement.unit]:
        yield f"{client} charged {statement.neighbours!r}, which is not the neighbouring relation of a {statement.unit}"
    if releases(plan) and COARSENESS.index(statement.unit) > COARSENESS.index(plan.privacy.unit):
        yield f"{client} counts what each {statement.unit} was charged, and the plan hides each {plan.privacy.unit}"
    if statement.simulated and not plan.privacy.simulated:
        yield f"{client} drew noise or samples from a seed, and the plan is no simulation"


def _uncharged(statement: Statement, plan: Plan, history: Sequence[RoundRecord]) -> Iterator[str]:
    """A contribution to a sum for which there is no charge, or a charge of something else than the plan releases."""
    planned = releases(plan)
    charged = {(charge.round, charge.attempt): charge.releases for charge in statement.charges}
    if len(charged) < len(statement.charges):
        yield f"{statement.client} charged one attempt twice"
    for record in history if planned else ():
        if statement.client in record.contributors and (record.round, record.attempt) not in charged:
            yield f"{statement.client} contributed to round {record.round} and did not charge it"
    if not as_planned(statement, plan):
        yield f"{statement.client} charged something else than the plan releases"


def _miscounted(said: Statement, plan: Plan) -> Iterator[str]:
    """A head or an epsilon that does not follow from the charges."""
    before, after = said.before, said.after
    if isinstance(before, Head) and isinstance(after, Head) and after.sequence - before.sequence < len(said.charges):
        yield f"{said.client}: the ledger grew by less than the charges of this run"
    if not isinstance(said.budget, Budget):
        return
    if {said.epsilon_before, said.epsilon_after}.intersection(("none", "unknown")):
        yield f"{said.client} states a budget, and not what was spent of it"
        return
    # Above it without a charge of this run, an earlier run had a larger budget, and this client refused all rounds.
    if said.charges and _number(said.epsilon_after) > said.budget.epsilon * (1 + _ROUNDING):
        yield f"{said.client}: epsilon {_words(said.epsilon_after)} exceeds the budget of {said.budget.epsilon:g}"
    if as_planned(said, plan):
        yield from _recomputed(said, said.budget.delta)


def _recomputed(said: Statement, delta: float) -> Iterator[str]:
    """All charges of a ledger come to no less than those before the run, and those of the run; and to what these come
    to where it has no others.
    """
    found = arithmetic.figures(said.releases, delta, said.unit)
    if isinstance(found, Unanswered):
        yield f"{said.client}: the charges have no epsilon ({found.why})"
        return
    stated, own, least = _number(said.epsilon_after), found.epsilon, max(found.epsilon, _number(said.epsilon_before))
    if stated < least and not _same(stated, least):
        yield f"{said.client} states epsilon {stated:.6g}, and its charges come to {least:.6g} or more"
    elif _alone(said) and not _same(stated, own):
        yield f"{said.client} states epsilon {stated:.6g}, and its charges come to {own:.6g}"


def _alone(said: Statement) -> bool:
    """Whether the ledger has had no charges but those of this run."""
    before, after = said.before, said.after
    ends = isinstance(before, Head) and isinstance(after, Head) and (before.sequence, after.sequence)
    return ends == (0, len(said.charges))


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_ROUNDING, abs_tol=_ROUNDING)


def _number(epsilon: Epsilon) -> float:
    """Of a word, infinity: it bounds nothing."""
    return epsilon if isinstance(epsilon, float) else math.inf


def _words(epsilon: Epsilon) -> str:
    return f"{epsilon:.6g}" if isinstance(epsilon, float) else epsilon
