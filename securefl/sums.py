"""Which sums a client has helped to open, and over whom it may help to open another.

Two sums over one model that differ by one client give away that client's update, whatever masks each of them. The
client itself is in one of the two only and sees nothing wrong; those who are in both can. A sum over a set is opened by
at least t of it, 2t > n + n_C for the n who began; of two sets that differ by one client, n_C + 1 are therefore the
same, and one of them is honest and remembers.

What nobody can notice: a server that changes the model by a hair and calls it the next round. Only a cohort that is
the same in the whole plan stops that, or noise on the sum (So et al., AAAI 2023, on what rounds together reveal).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import msgspec

from securefl.announcement import Announcement
from securefl.errors import Refused
from securefl.policy import SameCohort
from securefl.store import Store


@dataclass(frozen=True)
class Sums:
    """Those of one client, seen from one attempt. ``model``: a hash of what the attempt starts from, as this client has
    it.

    **Guarantee** (with masks, on the complete graph, if no owner's rule is "never" and at most n_C clients work with
    the server): in one round of a run, and over one model in all runs that use these clients' stores, no two sums are
    opened that differ by one client; with "plan", in all rounds and runs of the plan. With the default threshold and
    no colluders that holds for sets that differ by fewer than a third; of others, different clients may open each.
    """

    store: Store
    rule: SameCohort
    announced: Announcement
    model: bytes

    def admit(self, among: Collection[str]) -> None:
        """Raises ``Refused`` where a sum of some of these clients cannot be over the same as one that was opened."""
        for earlier in self._binding():
            if not earlier <= frozenset(among):
                raise _refused(earlier, among)

    def opening(self, survivors: Collection[str]) -> None:
        """Remember that a sum over these is opened; on disk when this returns. Raises ``Refused`` like :meth:`admit`,
        also for more clients than before.

        Not before: an attempt that failed earlier showed nobody a sum, and the next may do with fewer clients. Under
        the rule "never" nothing is remembered, also for rules that come later.
        """
        if self.rule == "never":
            return
        for earlier in self._binding():
            if earlier != frozenset(survivors):
                raise _refused(earlier, survivors)
        names = sorted(survivors)
        of_round = msgspec.msgpack.encode((self.announced.round, names))
        self.store.put(
            {self._round: of_round, **dict.fromkeys((self._model, self._plan), msgspec.msgpack.encode(names))}
        )

    def _binding(self) -> Iterator[frozenset[str]]:
        """Over whom the sums were that bind this one."""
        if self.rule == "never":
            return
        opened = self.store.get(self._round)
        if opened is not None:
            round, names = msgspec.msgpack.decode(opened, type=tuple[int, list[str]])
            if round == self.announced.round:  # none before the last can be joined again
                yield frozenset(names)
        for key in (self._model, self._plan) if self.rule == "plan" else (self._model,):
            known = self.store.get(key)
            if known is not None:
                yield frozenset(msgspec.msgpack.decode(known, type=list[str]))

    @property
    def _round(self) -> str:
        return f"summed in {self.announced.run}"

    @property
    def _model(self) -> str:
        return f"summed over {self.model.hex()}"

    @property
    def _plan(self) -> str:
        return f"summed under {self.announced.plan.digest().hex()}"


def _refused(earlier: frozenset[str], now: Collection[str]) -> Refused:
    differing = sorted(earlier.symmetric_difference(now))
    return Refused(
        f"a sum that this one could be subtracted from was opened before, over others: they differ by "
        f"{', '.join(differing[:5])}{' and more' * (len(differing) > 5)}. Ask whoever runs the server for the same "
        "clients, or for a new run; or change 'same_cohort' in this client's policy"
    )
