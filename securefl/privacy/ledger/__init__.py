"""What a data owner has released from one data set, in one SQLite file; kept, signed and enforced by the owner.

``chain``: entries, links, signatures, witnesses, as values. ``file``: SQLite. ``audit``: checks without the owner.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from protocols.primitives import Identity
from securefl.errors import BadInput, BudgetExceeded, LedgerError
from securefl.privacy.accountant import epsilon
from securefl.privacy.ledger.audit import Spent, Verified, export, verify, verify_export
from securefl.privacy.ledger.chain import (
    Chain,
    Content,
    Entry,
    Head,
    Header,
    Owner,
    Witness,
    altered,
    begun,
    charged,
    continued,
)
from securefl.privacy.ledger.file import LedgerFile, read
from securefl.privacy.mechanism import Budget, Release, cost
from securefl.privacy.planning import affordable_rounds, surely_affordable

__all__ = [
    "Chain",
    "Entry",
    "Head",
    "Header",
    "Ledger",
    "Owner",
    "Spent",
    "Verified",
    "Witness",
    "export",
    "read",
    "verify",
    "verify_export",
]

_FINGERPRINT_BYTES = 32


class Ledger:
    """All charges of one client against one data set, over rounds, runs and jobs.

    Opens ``path`` or creates it; ``":memory:"`` keeps nothing. ``budget`` may differ from an earlier one: the owner
    chooses, and each entry records it; None records charges and refuses none. Threads and processes may share a file.

    Guarantee: as long as every release is charged first, and the file is not rolled back, the epsilon of all that was
    released from this data set is at most ``epsilon()``, and at most the budget's, for the header's unit and
    neighbours. What a charge says of a release must not be chosen from what earlier charges released; within a run the
    plan fixes it. Nothing simulated is private, whatever it was charged.
    Raises ``LedgerError``, and changes nothing, on a file that is not an unaltered ledger of this owner and format.
    """

    def __init__(self, path: str | Path, identity: Identity, owner: Owner, budget: Budget | None) -> None:
        self.owner = owner
        self.budget = budget
        self._identity = identity
        self._lock = threading.RLock()
        self._allowance: _Allowance | None = None
        self._certain: _Allowance | None = None
        self._file = LedgerFile(str(path), begun(owner, identity, _now()))
        try:
            self._chain = self._file.chain()
            _refuse_other_owner(self._chain.header, owner, identity.public, self._file.path)
        except BaseException:
            self.close()
            raise

    @property
    def remembered(self) -> bool:
        """Whether it outlives the process."""
        return self._file.path != ":memory:"

    @property
    def header(self) -> Header:
        """Client, data set, unit, neighbouring relation, key and time of creation."""
        return self._chain.header

    def charge(
        self,
        run: str,
        round: int,
        attempt: int,
        releases: Sequence[Release],
        fingerprint: bytes,
        *,
        simulated: bool,
    ) -> Entry:
        """Record that one round is about to release all of ``releases``; on return it is on disk, and they may happen.

        ``fingerprint``: of the data now (``privacy.fingerprint``). ``simulated``: a seed makes the noise or sampling.
        A crash after this leaves it charged. Each attempt is charged once: a retry is another attempt, paid again.
        Raises ``BudgetExceeded`` if it does not fit, ``LedgerError`` if it was charged before, and ``BadInput`` for a
        release without an epsilon at the ledger's unit; none of them charges.
        """
        together = self._chargeable(releases)
        if len(fingerprint) != _FINGERPRINT_BYTES:
            raise BadInput(f"a fingerprint of {len(fingerprint)} bytes: make it with securefl.privacy.fingerprint")
        with self._lock:
            with self._file.writing():
                chain = self._current()
                self._refuse_second_charge(run, round, attempt)
                self._refuse_above_budget(together, 1)
                sequence = chain.head.sequence + 1
                content = Content(sequence, run, round, attempt, together, self.budget, fingerprint, simulated, _now())
                entry = charged(chain, self._identity, content)
                self._file.append(entry)
            self._take(chain.grown(entry))
        return entry

    def check(self, releases: Sequence[Release], rounds: int = 1) -> None:
        """Raise ``BudgetExceeded`` if ``rounds`` more rounds of ``releases`` would not fit.

        Charges nothing; only ``charge`` binds. Raises ``BadInput`` as ``charge`` does.
        """
        with self._lock:
            self._current()
            self._refuse_above_budget(self._chargeable(releases), rounds)

    def affordable(self, releases: Sequence[Release]) -> int:
        """How many more rounds of ``releases`` fit into the budget. Raises ``BadInput`` as ``charge`` does."""
        if self.budget is None:
            raise BadInput(f"{self.owner.client}: without a budget everything fits: open the ledger with one")
        with self._lock:
            self._current()
            return self._rounds_left(self.budget, self._chargeable(releases))

    def epsilon(self, delta: float | None = None) -> float:
        """Epsilon of every charge so far, at ``delta`` or else at the budget's."""
        if delta is None:
            if self.budget is None:
                raise BadInput(f"{self.owner.client}: an epsilon needs a delta: give one, or open with a budget")
            delta = self.budget.delta
        return epsilon(self._current().releases, delta, self.owner.unit)

    def entries(self) -> tuple[Entry, ...]:
        """All charges, oldest first, also those that other processes added. Raises ``LedgerError`` if altered."""
        return self._current().entries

    def head(self) -> Head:
        """The last link of the chain."""
        return self._current().head

    def witness(self) -> bytes:
        """What others are to witness, 72 bytes (``Witness``): who holds it notices a rollback to before it."""
        return self._current().witness.encoded()

    def close(self) -> None:
        """Let go of the file. Every charge is on disk already."""
        self._file.close()

    def _chargeable(self, releases: Sequence[Release]) -> tuple[Release, ...]:
        if not releases:
            raise BadInput("a charge of nothing: say what the round releases")
        for release in releases:
            cost(release, self.owner.unit)
        return tuple(releases)

    def _current(self) -> Chain:
        """The chain with what other processes added. What was verified before is kept; its last row must be there."""
        with self._lock:
            known = self._chain.entries
            rows = self._file.rows(max(len(known), 1))
            if known and (not rows or rows[0] != known[-1].row):
                raise altered(self._file.path, f"entry {len(known)} was there before and is gone or changed")
            self._take(continued(self._chain, rows[1:] if known else rows, self._file.path))
            return self._chain

    def _take(self, chain: Chain) -> None:
        """Go on with this longer chain, counting down the rounds that still fit."""
        for entry in chain.entries[len(self._chain.entries) :]:
            self._allowance = self._allowance and self._allowance.after(entry)
            self._certain = self._certain and self._certain.after(entry)
        self._chain = chain

    def _refuse_second_charge(self, run: str, round: int, attempt: int) -> None:
        if any((entry.run, entry.round, entry.attempt) == (run, round, attempt) for entry in self._chain.entries):
            raise LedgerError(
                f"{self.owner.client}: round {round}, attempt {attempt} of run {run!r} was charged before: "
                f"a retry must be a new attempt, which is charged again"
            )

    def _refuse_above_budget(self, releases: tuple[Release, ...], rounds: int) -> None:
        if self.budget is None or rounds <= self._certainly_left(self.budget, releases):
            return
        left = self._rounds_left(self.budget, releases)
        if rounds > left:
            spent, delta, unit = self._chain.releases, self.budget.delta, self.owner.unit
            after = epsilon([*spent, *releases * rounds], delta, unit)
            before = epsilon(spent, delta, unit)
            raise BudgetExceeded(self.owner.client, before, after, self.budget.epsilon, left, rounds)

    def _certainly_left(self, budget: Budget, releases: tuple[Release, ...]) -> int:
        """By a bound that takes no time: as long as it holds, nothing needs to be solved."""
        if self._certain is None or self._certain.releases != releases:
            left = surely_affordable(releases, budget, self._chain.releases, self.owner.unit)
            self._certain = _Allowance(releases, left)
        return self._certain.left

    def _rounds_left(self, budget: Budget, releases: tuple[Release, ...]) -> int:
        """Solved once, which takes seconds, and then counted down while only equal rounds are charged."""
        if self._allowance is None or self._allowance.releases != releases:
            left = affordable_rounds(releases, budget, self._chain.releases, self.owner.unit)
            self._allowance = _Allowance(releases, left)
        return self._allowance.left


@dataclass(frozen=True)
class _Allowance:
    """How many more rounds of ``releases`` the budget covers after the chain as it is."""

    releases: tuple[Release, ...]
    left: int

    def after(self, entry: Entry) -> _Allowance | None:
        """The allowance once ``entry`` is charged too; None where it must be solved anew."""
        return _Allowance(self.releases, self.left - 1) if entry.releases == self.releases and self.left > 1 else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _refuse_other_owner(header: Header, owner: Owner, public: bytes, path: str) -> None:
    found = header.owner
    if found.client != owner.client:
        raise LedgerError(
            f"{path} is the ledger of {found.client!r}, not of {owner.client!r}: open it under its owner's name"
        )
    if found.data != owner.data:
        raise LedgerError(
            f"{path} is the ledger of the data set {found.data!r}, not of {owner.data!r}: "
            f"open it under that name, or keep another file for other records"
        )
    if found.unit != owner.unit:
        raise LedgerError(
            f"{path} hides each {found.unit}, not each {owner.unit}, and what was spent cannot be carried from one to "
            f"the other: go on with the unit {found.unit!r}, or name a data set of other records"
        )
    if header.public_key != public:
        raise LedgerError(
            f"{path} is signed by the identity {header.public_key.hex()}, not by {public.hex()}: "
            f"open it with the identity that began it, which is in the client's store"
        )
