"""A client's control variate in one run (SCAFFOLD, Karimireddy et al., ICML 2020): kept for itself, never sent.

It is made of what the client sent before, so that it is as private as that; the mean of all follows from the mean of
the updates (:func:`securefl.strategy.control_change`).
"""

from __future__ import annotations

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from securefl import global_state
from securefl.errors import NotARun
from securefl.plan import Plan
from securefl.store import Store
from securefl.strategy import control_change


class _Variate(Struct, frozen=True, array_like=True):
    """c_i before and after a round: one that is tried again begins from the same. float32, little-endian."""

    round: int
    before: bytes
    after: bytes


class Control:
    """That of one client and run, in its store."""

    def __init__(self, store: Store, run: str, plan: Plan) -> None:
        self._store = store
        self._name = f"control variate {run}"
        self._plan = plan

    def correction(self, start: NDArray[np.float32], round: int) -> NDArray[np.float32]:
        """c - c_i, which is added to each step's gradient; shape (dimension,)."""
        return global_state.control(self._plan, start) - self._before(round)

    def move(self, start: NDArray[np.float32], update: NDArray[np.floating], round: int) -> None:
        """Remember c_i after a round of this update, in the units in which it is sent; on disk when this returns."""
        plan, before = self._plan, self._before(round)
        level = plan.privacy.client_level
        factor = 1.0 if level is None else global_state.clip(plan, start)
        sent = factor * np.clip(update[: plan.dimension].astype(np.float64), -plan.bound, plan.bound)
        change = control_change(plan, global_state.control(plan, start).astype(np.float64), sent, round)
        after = (before.astype(np.float64) + change).astype("<f4")
        kept = _Variate(round, before.astype("<f4").tobytes(), after.tobytes())
        self._store.put({self._name: msgspec.msgpack.encode(kept)})

    def _before(self, round: int) -> NDArray[np.float32]:
        """c_i as it was when this round was first begun; zeros at first, as in the paper."""
        stored = self._store.get(self._name)
        if stored is None:
            return np.zeros(self._plan.dimension, np.float32)
        try:
            kept = msgspec.msgpack.decode(stored, type=_Variate)
        except msgspec.DecodeError as error:
            raise NotARun("this client's control variate cannot be read: restore its folder from a backup") from error
        return np.frombuffer(kept.before if kept.round >= round else kept.after, "<f4")
