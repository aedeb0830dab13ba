"""One attempt at a round, as one client lives it: charged once, trained once, answered message by message.

Training happens inside exchange 2, after the ledger was charged; where several clients of a process are trained
together (:mod:`securefl.joint`), it is prepared first and then only answered.
"""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray

from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import InputRequest
from protocols.encoding import Floats
from protocols.wire import kind
from securefl.account import Account
from securefl.announcement import Announcement
from securefl.contribution import Material
from securefl.control import Control
from securefl.joint import Due, Suits, Task
from securefl.store import Store


class Attempt:
    """What this client does in it. ``start``: the model that it trains from, and what moves with it.

    **Guarantee**: no update leaves before its cost is in the ledger.
    """

    def __init__(
        self, announced: Announcement, start: NDArray[np.float32], material: Material, account: Account, store: Store
    ) -> None:
        self.start = start
        self._announced = announced
        self._material, self._account, self._store = material, account, store
        self.session: AggregationClient | None = None
        self._preparing = False
        self._task: Task | None = None  # charged for before its input was asked for

    @property
    def over(self) -> bool:
        """Whether this client has said its last word in it, or failed."""
        return self._opened.spent

    def begin(self, session: AggregationClient, request: bytes) -> bytes:
        """Answer the first request, by a session whose contribution is this attempt's."""
        self.session = session
        return session.handle(request)

    def handle(self, request: bytes) -> bytes:
        """Answer one of the others."""
        return self._opened.handle(request)

    def prepare(self, request: bytes, suits: Suits) -> Task | None:
        """All that ``handle`` does on a request for an input until it trains, the charge included. The training that it
        goes on with then, done or not; None, and nothing is done, for another request or what does not ``suit``.

        Raises what ``handle`` will raise.
        """
        surveys = self._announced.plan.surveys(self._announced.round)
        if surveys or self._task is not None or kind(request) != InputRequest.KIND:
            return None
        if not suits(self._material, self._announced.plan):
            return None
        self._preparing = True
        try:
            copy.copy(self._opened).handle(request)  # a copy, since it answers once only
        except Due as due:
            self._task = due.task
        finally:
            self._preparing = False
        return self._task

    def contribute(self) -> Floats:
        """The vector of the round: charged for, then made."""
        if self._task is not None:
            task, self._task = self._task, None
            return task.update()
        announced, start = self._announced, self.start
        self._account.charge(announced)
        if announced.plan.surveys(announced.round):
            return self._material.survey(announced.plan, start, self._account.random(announced, "training"))
        plan = announced.plan.at(announced.round)
        if not plan.strategy.controlled:
            task = Task(self._material, plan, start, lambda: self._account.random(announced, "training"))
            if self._preparing:
                raise Due(task)
            return task.update()
        control = Control(self._store, announced.run, announced.plan)
        random = self._account.random(announced, "training")
        update = self._material.update(plan, start, random, control.correction(start, announced.round))
        control.move(start, update, announced.round)
        return update

    @property
    def _opened(self) -> AggregationClient:
        if self.session is None:
            raise RuntimeError("the attempt has no session yet: begin it first")
        return self.session
