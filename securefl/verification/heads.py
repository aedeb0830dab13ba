"""What a client states of its ledger, against itself and against the heads that its peers saw; without the ledger."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from securefl.errors import BadInput, LedgerError
from securefl.privacy import accountant
from securefl.privacy.ledger import Witness
from securefl.privacy.mechanism import Budget
from securefl.report.document import Report
from securefl.report.statement import Head, Statement

_ROUNDING: Final = 1e-6


def mismatches(report: Report) -> Iterator[str]:
    """A line for each statement of a ledger that cannot be true, or that leaves out what the others say it has."""
    for signed in report.statements:
        yield from _incomplete(signed.statement)
        yield from _understated(signed.statement)
        yield from _unlike(signed.statement, report)


def witnessed(report: Report, client: str) -> dict[str, Witness | None]:
    """By peer, the last head of a client's ledger that it saw; None where what it states is no head."""
    shown = {signed.statement.client: signed.statement.witnessed.get(client) for signed in report.statements}
    return {peer: decoded(head) for peer, head in shown.items() if head is not None}


def decoded(head: str) -> Witness | None:
    """The head in these hexadecimal digits, if there is one."""
    try:
        return Witness.decoded(bytes.fromhex(head))
    except (ValueError, LedgerError):
        return None


def _incomplete(said: Statement) -> Iterator[str]:
    """Heads and epsilons are left out where there is no ledger, or no budget; never beside charges."""
    heads = isinstance(said.before, Head) and isinstance(said.after, Head) and len(said.ledger) > len("unknown")
    if said.charges and not heads:
        yield f"{said.client} states charges, and not where its ledger stood"
    if isinstance(said.budget, Budget) and {said.epsilon_before, said.epsilon_after}.intersection(("none", "unknown")):
        yield f"{said.client} states a budget, and not what was spent of it"


def _understated(said: Statement) -> Iterator[str]:
    """All charges of a ledger come to no less than those before the run, and those of the run."""
    if not isinstance(said.budget, Budget) or isinstance(said.epsilon_after, str):
        return
    try:
        least = accountant.epsilon(said.releases, said.budget.delta, said.unit)
    except BadInput as error:
        yield f"{said.client}: the charges have no epsilon ({error})"
        return
    before = said.epsilon_before if isinstance(said.epsilon_before, float) else 0.0
    if said.epsilon_after < max(least, before) * (1 - _ROUNDING) or said.epsilon_before == "infinite":
        known = math.inf if said.epsilon_before == "infinite" else max(least, before)
        yield f"{said.client} states epsilon {said.epsilon_after:.6g}, and its charges come to {known:.6g} or more"


def _unlike(said: Statement, report: Report) -> Iterator[str]:
    for peer, seen in witnessed(report, said.client).items():
        if seen is None:
            yield f"{peer} states what is no head of the ledger of {said.client}"
        elif seen.ledger.hex() != said.ledger:
            yield f"{said.client} states another ledger than {peer} saw"
        elif any(_other(head, seen) for head in (said.before, said.after)):
            yield f"{said.client} states another charge {seen.head.sequence} than {peer} saw"


def _other(head: Head | str, seen: Witness) -> bool:
    same = isinstance(head, Head) and head.sequence == seen.head.sequence
    return same and isinstance(head, Head) and head.digest != seen.head.digest.hex()
