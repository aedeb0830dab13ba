"""A client's ledger against what the client, and its peers, signed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from securefl.errors import AccountingMismatch, BadInput, LedgerError
from securefl.privacy.ledger import Chain, Entry, Witness
from securefl.privacy.mechanism import Budget
from securefl.report import arithmetic, heads
from securefl.report.arithmetic import Unanswered
from securefl.report.document import Report
from securefl.report.statement import Charge, SignedStatement, Statement
from securefl.report.statement import Head as StatedHead
from securefl.verification import audit

_ROUNDING: Final = 1e-6


def mismatches(path: Path, signed: SignedStatement, report: Report) -> Iterator[str]:
    """A line for each mismatch: the ledger is altered, of another key, set back behind a head that was seen, or says
    something else than the statement. Epsilons are computed from the ledger, by two accountants.
    """
    said = signed.statement
    try:
        chain = audit.verify(path, bytes.fromhex(signed.key), _witnesses(report, said)).chain
        found = [*_described(said, chain), *_spent(said, chain.entries)]
    except (LedgerError, AccountingMismatch, BadInput) as error:
        found = [str(error)]
    yield from (f"ledger of {said.client}: {line}" for line in found)


def _witnesses(report: Report, own: Statement) -> Iterator[Witness]:
    """The heads that peers saw of this client's ledger, and those that it states itself."""
    stated = [head for head in (own.before, own.after) if isinstance(head, StatedHead)]
    encoded = [f"{own.ledger}{head.sequence:016x}{head.digest}" for head in stated]
    found = [
        *heads.witnessed([one.statement for one in report.statements], own.client).values(),
        *map(heads.decoded, encoded),
    ]
    return (head for head in found if head is not None)


def _described(said: Statement, chain: Chain) -> Iterator[str]:
    own = [entry for entry in chain.entries if entry.run == said.run]
    pairs: dict[str, tuple[object, object]] = {
        "client": (chain.header.client, said.client),
        "data set": (chain.header.data, said.data),
        "unit": (chain.header.unit, said.unit),
        "id": (chain.id.hex(), said.ledger),
        "charges of this run": (tuple(Charge(one.round, one.attempt, one.releases) for one in own), said.charges),
        "fingerprints of the data": (tuple(dict.fromkeys(one.fingerprint.hex() for one in own)), said.fingerprints),
    }
    if own:
        pairs["head before the run"] = (_stated(own[0].sequence - 1, own[0].previous), said.before)
        pairs["head after the run"] = (_stated(own[-1].sequence, own[-1].digest), said.after)
    yield from (f"another {what} than in the statement" for what, (has, states) in pairs.items() if has != states)
    if any(one.simulated for one in own) and not said.simulated:
        yield "noise or samples came from a seed, which the statement denies"


def _stated(sequence: int, digest: bytes) -> StatedHead:
    return StatedHead(sequence, digest.hex())


def _spent(said: Statement, entries: Sequence[Entry]) -> Iterator[str]:
    """Epsilon before and after the run, of everything that was ever charged."""
    budget = said.budget
    for when, head, stated in (
        ("before", said.before, said.epsilon_before),
        ("after", said.after, said.epsilon_after),
    ):
        if not isinstance(head, StatedHead) or not isinstance(budget, Budget):
            continue
        released = [release for entry in entries[: head.sequence] for release in entry.releases]
        found, figure = (
            arithmetic.figures(released, budget.delta, said.unit),
            math.inf if stated == "infinite" else stated,
        )
        if isinstance(found, Unanswered):
            yield f"epsilon {when} the run cannot be computed: {found.why}"
        elif not isinstance(figure, float) or not math.isclose(
            found.epsilon, figure, rel_tol=_ROUNDING, abs_tol=_ROUNDING
        ):
            yield f"epsilon {when} the run comes to {found.epsilon:.6g}, the statement says {stated}"
