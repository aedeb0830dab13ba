"""What in a run's statements cannot be true together with the plan, the server's record, or each other.

One line each, naming the client. Finding none proves consistency, not that a site did what it says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from protocols.errors import Forged
from securefl.errors import BadInput
from securefl.plan import Plan
from securefl.privacy import accountant
from securefl.privacy.mechanism import NEIGHBOURS, Budget
from securefl.records import RoundRecord, Summary
from securefl.releases import releases
from securefl.report.facts import Facts
from securefl.report.statement import Head, SignedStatement, Statement, opened

# Two installations of the accountant may round apart by this much of an epsilon; no real charge is so small.
_ROUNDING: Final = 1e-6


def found(facts: Facts) -> Iterator[str]:
    """Every contradiction in a run folder's facts. Raises ``AccountingMismatch`` if the accountants disagree."""
    statements = [signed.statement for signed in facts.statements]
    yield from _repeated(statements)
    yield from _disagreements(statements, facts.summary)
    for signed in facts.statements:
        yield from _forged(signed)
        yield from _foreign(signed.statement, facts.plan)
        yield from _uncharged(signed.statement, facts.plan, facts.history)
        yield from _miscounted(signed.statement)
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
    if any(released != planned for released in charged.values()):
        yield f"{statement.client} charged something else than the plan releases"


def _miscounted(statement: Statement) -> Iterator[str]:
    """A head or an epsilon that does not follow from the charges; only where nothing was in the ledger before."""
    client, before, after, budget = statement.client, statement.before, statement.after, statement.budget
    if not (isinstance(before, Head) and isinstance(after, Head)):
        return
    if after.sequence - before.sequence < len(statement.charges):
        yield f"{client}: the ledger grew by less than the charges of this run"
    if not isinstance(budget, Budget) or not isinstance(statement.epsilon_after, float):
        return
    if statement.epsilon_after > budget.epsilon * (1 + _ROUNDING):
        yield f"{client}: epsilon {statement.epsilon_after:.6g} exceeds the budget of {budget.epsilon:g}"
    if before.sequence == 0 and after.sequence == len(statement.charges):
        yield from _recomputed(statement, budget.delta, statement.epsilon_after)


def _recomputed(statement: Statement, delta: float, stated: float) -> Iterator[str]:
    try:
        own = accountant.epsilon(statement.releases, delta, statement.unit)
    except BadInput as error:
        yield f"{statement.client}: the charges have no epsilon ({error})"
        return
    if abs(own - stated) > _ROUNDING * (1 + own):
        yield f"{statement.client} states epsilon {stated:.6g} and its charges come to {own:.6g}"
