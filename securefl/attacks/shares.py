"""Shares that are not what they should be: one client deals what nobody can use, or opens what it was not dealt, so
that masks come off wrongly and the sum is noise that looks like a model.

The protocol rebuilds secrets from shares that clients committed to, and names whose do not fit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import msgspec
import numpy as np

from protocols import shamir
from protocols.aggregation.client import AggregationClient
from protocols.aggregation.messages import Dealt, Envelope, Opened, SharePair, UnmaskRequest
from protocols.aggregation.session import Step
from protocols.aggregation.states import Cohort, Consenting, State
from protocols.aggregation.verify import read
from protocols.base import ClientId
from protocols.primitives import AgreementKey
from securefl import vector
from securefl.announcement import Announcement
from securefl.attacks.cell import Cell, Effort, Figure, Verdict
from securefl.attacks.scene import VICTIM, Scene, Vector
from securefl.attacks.settings import SETTINGS, Setting
from securefl.attacks.updates import RATE, linear, odd_one_out, true_update
from securefl.client import Client
from securefl.errors import RoundFailed

NAME: Final = "forged or swapped shares"
SOURCE: Final = "Bonawitz et al., CCS 2017, figure 4, rounds 1 and 4: where shares are dealt and opened"
ADVERSARY: Final = "one client, which deals or opens wrong shares"

WRONG: Final = 0.4
"""Error of a mean update, root mean square, from which it is none: a mask that was left on makes it uniform over the
ring, which is 4.6 with the bound of 8 and 0.6 with that of 1 clip; client-level noise is 0.13 of 5 clients."""

LIAR: Final = "other-00"

_NO_SHARES: Final = "there are no masks, and no shares to forge"
_HELD: Final = (
    "each share is checked against its dealer's commitment: the sum was right, or there was none, and the client "
    "named; the next attempt does without it"
)
_NOT_HELD: Final = "a sum was wrong, or nobody was named for it"


class OffPolynomial(AggregationClient):
    """Deals shares that open and fit their commitments, of other secrets than its own."""

    def _deal(self, key: AgreementKey, cohort: Cohort, receiver: ClientId, pair: SharePair) -> bytes:
        points = self._terms.roster.points
        holders = [points[name] for name in cohort.graph.holders(self._name)]
        wrong = shamir.split(bytes(32), cohort.graph.threshold, holders, lambda size: bytes([1]) * size)
        return super()._deal(key, cohort, receiver, SharePair(wrong[points[receiver]], wrong[points[receiver]]))


class Garbage(AggregationClient):
    """Deals what nobody can open."""

    def _deal(self, key: AgreementKey, cohort: Cohort, receiver: ClientId, pair: SharePair) -> bytes:
        dealt = read([super()._deal(key, cohort, receiver, pair)], Dealt)
        return msgspec.msgpack.encode(msgspec.structs.replace(dealt, sealed=dealt.sealed[::-1]))


class Opens(AggregationClient, ABC):
    """Opens something else than it was dealt."""

    @abstractmethod
    def opened(self, shares: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """What it opens in place of its shares."""

    def _unmask(self, state: Consenting, request: UnmaskRequest) -> tuple[State, Envelope]:
        spent, honest = super()._unmask(state, request)
        body = Opened(self.opened(read(honest.parts, Opened).shares))
        return spent, self._envelope(Step.UNMASK, state.members, [msgspec.msgpack.encode(body)])


class Forges(Opens):
    """Opens one share that is off by one."""

    def opened(self, shares: tuple[bytes, ...]) -> tuple[bytes, ...]:
        forged = (int.from_bytes(shares[-1], "big") + 1) % shamir.PRIME
        return (*shares[:-1], forged.to_bytes(len(shares[-1]), "big"))


class Swaps(Opens):
    """Opens the shares of two dealers in each other's place."""

    def opened(self, shares: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return (*shares[:-2], shares[-1], shares[-2])


class Liar(Client):
    """A client that runs another session than it should."""

    session: ClassVar[type[AggregationClient]] = AggregationClient

    def _begin(self, announced: Announcement, request: bytes) -> bytes:
        reply = super()._begin(announced, request)
        if self._attempt is not None and self._attempt.session is not None:
            self._attempt.session.__class__ = self.session
        return reply


class DealsOffPolynomial(Liar):
    session = OffPolynomial


class DealsGarbage(Liar):
    session = Garbage


class OpensForged(Liar):
    session = Forges


class OpensSwapped(Liar):
    session = Swaps


LIES: Final[Mapping[str, type[Liar]]] = {
    "deals shares of other secrets": DealsOffPolynomial,
    "deals what does not open": DealsGarbage,
    "opens a forged share": OpensForged,
    "opens swapped shares": OpensSwapped,
}


@dataclass(frozen=True)
class Ending:
    """How a round with a liar ended. ``error``: of the mean update, root mean square; None where there was no sum."""

    error: float | None
    named: bool


def cells(effort: Effort) -> Iterator[Cell]:
    """One a setting: the largest error of a mean update, over four lies."""
    for setting in SETTINGS:
        yield cell(setting) if setting.protection.masked else Cell(NAME, setting.name, "none", (), _NO_SHARES)


def cell(setting: Setting) -> Cell:
    """All four lies on a setting with masks."""
    endings = [ending(setting, lie) for lie in LIES.values()]
    errors = [end.error for end in endings if end.error is not None]
    figures = (
        Figure("largest error of the mean", max(errors, default=0.0)),
        Figure("attempts ended without a sum", float(len(endings) - len(errors))),
        Figure("liars named, of 4", float(sum(end.named for end in endings))),
    )
    found = verdict(endings)
    return Cell(NAME, setting.name, found, figures, _HELD if found == "green" else _NOT_HELD)


def verdict(endings: list[Ending]) -> Verdict:
    """Red for a wrong sum, amber where somebody was not named."""
    if any(end.error is not None and end.error >= WRONG for end in endings):
        return "red"
    return "green" if all(end.named for end in endings) else "amber"


def ending(setting: Setting, lie: type[Liar]) -> Ending:
    """One round with one liar."""
    data = odd_one_out()
    scene = Scene(
        setting, linear, data, mechanism=setting.mechanism(), learning_rate=RATE, rounds=2, dishonest={LIAR: lie}
    )
    before = _model(scene)
    try:
        view = scene.round()
    except RoundFailed as failure:
        return Ending(None, {name for name, why in failure.lost.items() if why.startswith("blamed: ")} == {LIAR})
    updates = [true_update(linear, vector.flatten(scene.module()), data[name]) for name in view.outcome.contributors]
    off = _model(scene) - before - sum(updates, np.zeros(len(before))) / len(data)
    return Ending(float(np.sqrt(np.mean(off**2))), set(view.outcome.dropped) == {LIAR})


def _model(scene: Scene) -> Vector:
    """What honest clients have."""
    found = scene.model_of(VICTIM)
    return (vector.flatten(scene.module()) if found is None else found).astype(np.float64)
