"""Which runs a client took part in, and under which plan: kept before anything is signed, ended by its statement."""

from __future__ import annotations

from securefl.announcement import Announcement
from securefl.errors import Refused
from securefl.plan import Plan
from securefl.store import Store


class Attendance:
    """That of one client, in its store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def join(self, announced: Announcement) -> None:
        """Remember attempt and plan. Raises ``SessionSpent`` unless it is later than all before in the run."""
        self._store.join_attempt(announced.run, announced.round, announced.attempt)
        if self._store.get(_plan_of(announced.run)) is None:
            self._store.put({_plan_of(announced.run): announced.plan.digest()})

    def require_open(self, run: str) -> None:
        """Raises ``Refused`` for a run that this client has made its statement on."""
        if self._store.get(_closed(run)) is not None:
            raise Refused(f"run {run} is over for this client: it has signed its statement")

    def close(self, run: str, plan: Plan) -> None:
        """End a run for this client: what came later would be left out of its statement.

        Raises ``Refused`` for one that it did not take part in under this plan.
        """
        if self._store.get(_plan_of(run)) != plan.digest():
            raise Refused(f"this client took part in no round of run {run!r} under the plan that it has accepted now")
        self._store.put({_closed(run): b"closed"})


def _plan_of(run: str) -> str:
    return f"plan {run}"


def _closed(run: str) -> str:
    return f"closed {run}"
