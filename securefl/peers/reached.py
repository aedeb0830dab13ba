"""The clients of an engine, as the peer that acts reaches them: by its own exchange, those who gave it the turn."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from protocols.base import Exchange
from securefl.global_state import Measured
from securefl.parties import Carried, Held, Parties
from securefl.plan import Plan
from securefl.server import Server

if TYPE_CHECKING:
    from securefl.data import Dataset


class Reached:
    """``beside``: what else the engine lets this peer see of the others."""

    def __init__(self, beside: Parties, exchange: Exchange, there: Collection[str]) -> None:
        self._beside = beside
        self._exchange = exchange
        self._there = frozenset(there)

    @property
    def roster(self) -> Mapping[str, bytes]:
        return self._beside.roster

    def enrol(self, server: Server) -> None:
        self._beside.enrol(server)

    def exchange(self, round: int) -> Exchange:
        return self._exchange

    def present(self, plan: Plan) -> frozenset[str]:
        return self._there

    def epsilon(self, server: Server) -> dict[str, float]:
        return self._beside.epsilon(server)

    def measured(self, run: str, round: int) -> Measured | None:
        return self._beside.measured(run, round)

    def refuse(self, plan: Plan, lost: Mapping[str, str]) -> None:
        self._beside.refuse(plan, lost)

    def carried_over(self, run: str, plan: Plan) -> dict[str, Carried]:
        return self._beside.carried_over(run, plan)

    def models(self, run: str, round: int) -> Sequence[Held]:
        return self._beside.models(run, round)

    def records(self) -> Sequence[Dataset]:
        return self._beside.records()

    def close(self) -> None:
        self._beside.close()
