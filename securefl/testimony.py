"""From an owner's account of its data to its statement on one run: what was charged, is spent, was witnessed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from protocols.aggregation.session import Roster
from securefl.account import Account
from securefl.plan import Plan
from securefl.privacy.accountant import epsilon
from securefl.privacy.ledger import Entry, Ledger
from securefl.report.software import versions
from securefl.report.statement import Charge, Epsilon, Head, Statement


def statement(
    account: Account, run: str, plan: Plan, roster: Roster, model: str, surveyed: tuple[float, ...] = ()
) -> Statement:
    """One client's statement. ``model``: SHA-256 in hex of the final model that it holds, or "unknown"; ``surveyed``:
    what the run's survey counted, where this client has read it.
    """
    ledger = account.ledger
    everything = ledger.entries()
    own = [entry for entry in everything if entry.run == run]
    first, last = _around(ledger, own)
    kept = ledger.remembered or bool(own)
    seen = {name: account.witnesses.of(run, key) for name, key in sorted(roster.keys.items()) if name != account.name}
    return Statement(
        run=run,
        client=account.name,
        plan=plan.digest().hex(),
        model=model,
        data=ledger.owner.data,
        fingerprints=tuple(dict.fromkeys(entry.fingerprint.hex() for entry in own)),
        unit=ledger.header.unit,
        neighbours=ledger.header.neighbours,
        ledger=ledger.witness()[:32].hex() if kept else "none",
        before=first if kept else "none",
        after=last if kept else "none",
        charges=tuple(Charge(entry.round, entry.attempt, entry.releases) for entry in own),
        budget=ledger.budget or "none",
        epsilon_before=_spent(ledger, everything[: first.sequence]),
        epsilon_after=_spent(ledger, everything[: last.sequence]),
        refused=account.refusals(run),
        simulated=account.simulated or any(entry.simulated for entry in own),
        witnessed={name: found.head.hex() for name, found in seen.items() if found is not None},
        doubts=tuple(f"{name}: {found.contradiction}" for name, found in seen.items() if found and found.contradiction),
        software=versions(),
        surveyed=surveyed,
    )


def _around(ledger: Ledger, own: Sequence[Entry]) -> tuple[Head, Head]:
    """The heads before the run's first charge and behind its last; both the ledger's own where it charged nothing."""
    if not own:
        now = ledger.head()
        head = Head(now.sequence, now.digest.hex())
        return head, head
    first, last = own[0], own[-1]
    return Head(first.sequence - 1, first.previous.hex()), Head(last.sequence, last.digest.hex())


def _spent(ledger: Ledger, entries: Sequence[Entry]) -> Epsilon:
    if ledger.budget is None:
        return "none"
    released = [release for entry in entries for release in entry.releases]
    found = epsilon(released, ledger.budget.delta, ledger.header.unit)
    return found if math.isfinite(found) else "infinite"
