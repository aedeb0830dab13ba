"""A client's ledger against what the client, and its peers, signed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from securefl.errors import AccountingMismatch, BadInput, LedgerError
from securefl.privacy import accountant
from securefl.privacy.ledger import Entry, Head, Witness, verify
from securefl.privacy.mechanism import Budget
from securefl.report.document import Report
from securefl.report.statement import Charge, SignedStatement, Statement
from securefl.report.statement import Head as StatedHead

_ROUNDING: Final = 1e-6


def mismatches(path: Path, signed: SignedStatement, report: Report) -> Iterator[str]:
    """A line for each mismatch: the ledger is altered, of another key, set back behind a head that was seen, or says
    something else than the statement. Epsilons are computed from the ledger, by two accountants.
    """
    client = signed.statement.client
    try:
        chain = verify(path, bytes.fromhex(signed.key), _witnesses(report, signed.statement)).chain
        found = [*_described(signed.statement, chain.header.owner.data, chain.header.unit, chain.entries)]
        found += _spent(signed.statement, chain.entries)
    except (LedgerError, AccountingMismatch, BadInput) as error:
        found = [str(error)]
    yield from (f"ledger of {client}: {line}" for line in found)


def _witnesses(report: Report, own: Statement) -> list[Witness]:
    """The heads that peers saw of this client's ledger, and those that it states itself."""
    stated = [head for head in (own.before, own.after) if isinstance(head, StatedHead)]
    shown = [peer.statement.witnessed.get(own.client) for peer in report.statements]
    seen = [Witness.decoded(bytes.fromhex(head)) for head in shown if head is not None]
    ledger = bytes.fromhex(own.ledger)
    return [*seen, *(Witness(ledger, Head(head.sequence, bytes.fromhex(head.digest))) for head in stated)]


def _described(statement: Statement, data: str, unit: str, entries: Sequence[Entry]) -> Iterator[str]:
    own = [entry for entry in entries if entry.run == statement.run]
    charges = tuple(Charge(entry.round, entry.attempt, entry.releases) for entry in own)
    fingerprints = tuple(dict.fromkeys(entry.fingerprint.hex() for entry in own))
    pairs = {
        "charges of this run": (charges, statement.charges),
        "data set": (data, statement.data),
        "unit": (unit, statement.unit),
        "fingerprints of the data": (fingerprints, statement.fingerprints),
        "word on seeds": (any(entry.simulated for entry in own), statement.simulated),
    }
    yield from (f"other {what} than in the statement" for what, (has, said) in pairs.items() if has != said)


def _spent(statement: Statement, entries: Sequence[Entry]) -> Iterator[str]:
    """Epsilon before and after the run, of everything that was ever charged."""
    budget = statement.budget
    for when, head, said in (
        ("before", statement.before, statement.epsilon_before),
        ("after", statement.after, statement.epsilon_after),
    ):
        if not isinstance(head, StatedHead) or not isinstance(budget, Budget):
            continue
        released = [release for entry in entries[: head.sequence] for release in entry.releases]
        own = accountant.epsilon(released, budget.delta, statement.unit)
        accountant.cross_check(released, budget.delta, statement.unit)
        stated = math.inf if said == "infinite" else said
        if not isinstance(stated, float) or not math.isclose(own, stated, rel_tol=_ROUNDING, abs_tol=_ROUNDING):
            yield f"epsilon {when} the run comes to {own:.6g}, the statement says {said}"
