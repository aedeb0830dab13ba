"""One owner's account of its data: what it charges before anything is released, shows to the others and remembers.

Noise and samples come from here, so that what is charged and what is drawn cannot come apart: from the operating system
or, in a run that says it is a simulation, from a seed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from protocols.aggregation.session import Roster
from protocols.errors import Inconsistent
from protocols.primitives import Identity
from securefl.announcement import Announcement
from securefl.data import Dataset
from securefl.errors import BadInput, BudgetExceeded, Refused
from securefl.plan import Plan
from securefl.privacy.fingerprint import fingerprint, fingerprint_key
from securefl.privacy.ledger import Ledger, Owner
from securefl.privacy.mechanism import COARSENESS, Budget, Unit
from securefl.privacy.noise import Random
from securefl.privacy.simulation import seeded
from securefl.releases import releases
from securefl.store import Store
from securefl.witnesses import Witnesses

ATTEMPTS = 2
"""How often a round is tried, and charged, on average over a run."""

_SPARE_ATTEMPTS = 3  # of short runs, which a crash or two should not end
_IDENTITY = "identity"
_REFUSED = "refused rounds"
_RUNS_COUNTED = 1000  # the newest: whoever may announce rounds can name runs without end


def most_charged(plan: Plan) -> int:
    """How many attempts of one run of a plan a client is charged for at most."""
    most = plan.participations
    return max(ATTEMPTS * most, most + _SPARE_ATTEMPTS)


def load_identity(store: Store, random: Random = os.urandom) -> Identity:
    """The Ed25519 identity in a store, made there if it has none. Whoever has the file can speak as this client."""
    secret = store.get(_IDENTITY, length=32)
    if secret is None:
        secret = Identity.generate(random).secret
        store.put({_IDENTITY: secret}, expected={_IDENTITY: None})
    return Identity(secret)


def forgotten(name: str, identity: Identity, budget: Budget | None, unit: Unit) -> Ledger:
    """A ledger in memory, for trials: it ends with the process, and with it all that was counted."""
    return Ledger(":memory:", identity, Owner(name, "in memory", unit), budget)


class Account:
    """``ledger`` is the owner's; ``keep`` outlives runs. ``seed``: noise and samples come from it, in simulations.

    Raises ``BadInput`` for a ledger of another client or identity.
    """

    def __init__(
        self, name: str, identity: Identity, ledger: Ledger, keep: Store, data: Dataset, seed: int | None
    ) -> None:
        if (ledger.owner.client, ledger.header.public_key) != (name, identity.public):
            raise BadInput(f"{name}: the ledger was opened for another client or identity: open it with the same")
        self.ledger = ledger
        self.witnesses = Witnesses(keep)
        self.name = name
        self._keep = keep
        self._seed = seed
        self._accepted_at = 0
        self._runs: set[str] = set()  # that the server named since the plan was accepted
        self.fingerprint = fingerprint(fingerprint_key(identity), data.features, data.labels)

    @property
    def simulated(self) -> bool:
        """Whether noise and samples come from a seed, and hide nothing from who knows it."""
        return self._seed is not None

    def check_simulated(self, plan: Plan) -> None:
        """Raises ``Refused`` where this client's noise would come from a seed and the plan does not say so."""
        if self.simulated and not plan.privacy.simulated:
            raise Refused("this client draws its noise from a seed and the plan is no simulation: give it no seed")

    def check(self, plan: Plan, rounds: int) -> None:
        """Raises ``BudgetExceeded`` if so many more rounds, and the survey, would not fit; ``Refused`` for a ledger of
        a coarser unit of privacy than the plan's. Charges nothing.
        """
        self._check_unit(plan)
        released, last = releases(plan), releases(plan, plan.last)
        if self.ledger.budget is None or not released or not rounds:
            return
        self.ledger.check(released, rounds)
        if plan.last > plan.rounds:
            self.ledger.check((*released * rounds, *last))

    def _check_unit(self, plan: Plan) -> None:
        """What hides a record is no price for a patient with several of them, nor for a whole client."""
        unit = self.ledger.header.unit
        if releases(plan) and COARSENESS.index(unit) > COARSENESS.index(plan.privacy.unit):
            raise Refused(
                f"this ledger counts what each {unit} was charged, and the plan hides each {plan.privacy.unit}: ask "
                f'for [privacy] unit = "{unit}", or open another ledger, for other data'
            )

    def accept(self, plan: Plan, rounds: int) -> None:
        """The same as ``check``; from now on it is counted what this plan is charged for."""
        self.check(plan, rounds)
        self._accepted_at, self._runs = len(self.ledger.entries()), set()

    def check_round(self, plan: Plan, run: str, round: int = 1) -> None:
        """The same for the next round of a run; a refusal is counted.

        Raises ``Refused`` where the plan was charged for twice its rounds, and three more than them, already, in this
        run or, since it was accepted, in all that the server named: an attempt may fail now and then, but a server may
        not spend what is left of the owner's budget on one plan.
        """
        entries = self.ledger.entries()
        self._runs.add(run)
        of_plan = sum(entry.run in self._runs for entry in entries[self._accepted_at :])
        charged = max(sum(entry.run == run for entry in entries), of_plan)
        if charged >= most_charged(plan):
            raise Refused(
                f"for this plan of {plan.participations} rounds {charged} attempts were charged: ask why so many "
                "failed, or who else asks, and accept a new run if it is to go on"
            )
        try:
            if self.ledger.budget is not None and (released := releases(plan, round)):
                self.ledger.check(released)
        except BudgetExceeded:
            counts = self._refused()
            newest = {**{other: counts[other] for other in counts if other != run}, run: counts.get(run, 0) + 1}
            kept = dict(list(newest.items())[-_RUNS_COUNTED:])
            self._keep.put({_REFUSED: msgspec.msgpack.encode(kept)})
            raise

    def charge(self, announced: Announcement) -> None:
        """Write down what the round is about to release; on disk when this returns, and only then may it be made."""
        if released := releases(announced.plan, announced.round):
            self.ledger.charge(
                announced.run, announced.round, announced.attempt, released, self.fingerprint, simulated=self.simulated
            )

    def refusals(self, run: str) -> int:
        """How many rounds of a run this owner's budget refused."""
        return self._refused().get(run, 0)

    def _refused(self) -> dict[str, int]:
        return msgspec.msgpack.decode(self._keep.get(_REFUSED) or b"\x80", type=dict[str, int])

    def random(self, announced: Announcement, purpose: str) -> Random:
        """What noise and samples of one attempt are drawn from; never the same for two attempts or purposes."""
        if self._seed is None:
            return os.urandom
        return seeded(self._seed, self.name, announced.round, announced.attempt, purpose)

    def shown(self) -> bytes:
        """The head of the ledger, for others to remember; nothing of a ledger that ends with the process."""
        return self.ledger.witness() if self.ledger.remembered else b""

    def see(self, run: str, roster: Roster, shown: Mapping[str, bytes]) -> list[str]:
        """Remember the heads that others showed; returns what is wrong with them, in words.

        Nothing is refused for it: a ledger that was set back endangers its owner's data and nobody else's. It stands in
        this client's statement, which the server cannot change.
        """
        wrong = []
        for name, head in shown.items():
            try:
                self.witnesses.see(run, roster.public_key(name), name, head)
            except Inconsistent as error:
                wrong.append(str(error))
        self.witnesses.save()
        return wrong
