"""What an owner decided of plans: by a rule in ``site.toml``, by their hash there, or by hand."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from securefl.account import most_charged
from securefl.deployment.approvals import Approvals
from securefl.deployment.site_file import SiteFile
from securefl.deployment.site_folder import SiteFolder
from securefl.errors import Refused
from securefl.plan import Plan
from securefl.privacy.ledger import Ledger
from securefl.store import Store

_UNCHARGED: Final = 100  # runs of one plan that are remembered without a charge: whoever announces may name any


class Decisions:
    """Of one site.

    **Guarantee**: a plan that was accepted by its hash is charged for one run and its failed attempts at most
    (:func:`securefl.account.most_charged`), whatever its runs are called; and so is every run that a person approved.
    Where all that the policy allows is accepted, only the budget bounds what is charged: the same in other words is
    another plan. Assumes that ``keep`` and the ledger are not set back.
    """

    def __init__(self, folder: SiteFolder, file: SiteFile, keep: Store, ledger: Ledger | None) -> None:
        self._folder, self._file, self._keep, self._ledger = folder, file, keep, ledger
        self._approvals = Approvals(folder.plans)

    def require(self, plan: Plan, run: str, by: str) -> None:
        """Raises ``Refused`` unless the owner takes part in this run of who proposes it; the plan then waits."""
        begun = self._file.accepts(plan) and run in self._runs(plan)
        allowed = self._file.accepts_all or begun or self._by_hash(plan, run)
        if not allowed and not self._approvals.allows(plan, run, by):
            self._ask(plan, run, by)

    def take(self, plan: Plan, run: str, by: str) -> None:
        """The same as an attempt of the run begins: what was decided for one run is for this one from now on.

        Raises ``Refused`` as well for a run that was charged as often as it may be: that is nothing to be approved.
        """
        if self._charged({run}) >= most_charged(plan):
            raise Refused(
                f"{most_charged(plan)} attempts of run {run!r}, of {plan.participations} rounds, were charged: ask why "
                "so many failed; it may be proposed again as a new run"
            )
        if self._file.accepts_all:
            return
        if self._by_hash(plan, run):
            self._remember(plan, run)
        elif not self._approvals.take(plan, run, by):
            self._ask(plan, run, by)

    def waits(self, plan: Plan, by: str) -> bool:
        """Whether somebody has to look at it first."""
        return self._approvals.waits(plan, by)

    def _ask(self, plan: Plan, run: str, by: str) -> None:
        name = plan.digest().hex()
        self._approvals.ask(plan, by)
        if not self._approvals.waits(plan, by):
            raise Refused(f"plan {name} of run {run!r}, proposed by {by}, was rejected")
        raise Refused(
            f"plan {name} of run {run!r}, proposed by {by}, waits for approval: "
            f"securefl site approve {self._folder.path} {name}"
        )

    def _by_hash(self, plan: Plan, run: str) -> bool:
        return self._file.accepts(plan) and self._charged({*self._runs(plan), run}) < most_charged(plan)

    def _charged(self, runs: Collection[str]) -> int:
        return 0 if self._ledger is None else sum(entry.run in runs for entry in self._ledger.entries())

    def _remember(self, plan: Plan, run: str) -> None:
        known = self._runs(plan)
        if run not in known:
            charged = set() if self._ledger is None else {entry.run for entry in self._ledger.entries()}
            without = [other for other in known if other not in charged]
            kept = [other for other in known if other in charged] + without[-_UNCHARGED:]
            self._keep.put({_name(plan): msgspec.msgpack.encode([*kept, run])})

    def _runs(self, plan: Plan) -> list[str]:
        """Runs of a plan that was accepted by its hash."""
        return msgspec.msgpack.decode(self._keep.get(_name(plan)) or b"\x90", type=list[str])


def _name(plan: Plan) -> str:
    return f"by hash {plan.digest().hex()}"
