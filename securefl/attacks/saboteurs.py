"""Federations on digits with one dishonest client, and how well their models do.

The saboteur follows the protocol, but not the code that makes its upload: the L2 clip and the cut at the encoding's
bound are every client's own, and it leaves them out. Nobody can tell from a masked upload. What binds it is the range
of the ring: n bounds a coordinate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocols.aggregation.states import Contribution
from protocols.encoding import Floats, Integers
from securefl import evaluation, protection
from securefl.announcement import Announcement
from securefl.attacks.cell import Effort
from securefl.attacks.pictures import private_digits, public_digits
from securefl.attacks.scene import Scene, Vector, View
from securefl.attacks.settings import Setting
from securefl.attacks.updates import linear
from securefl.client import Client
from securefl.data import Dataset
from securefl.privacy.mechanism import Training

SABOTEUR: Final = "saboteur"
RATE: Final = 0.5
STEPS: Final = 5

_PER_CLIENT: Final = 80
_OF_THE_RANGE: Final = 0.9  # the rest is left to the honest clients' parts, or the sum would wrap


@dataclass(frozen=True)
class Size:
    """Of one experiment: clients, the saboteur among them, and rounds."""

    clients: int
    rounds: int


SIZES: Final[dict[Effort, Size]] = {"quick": Size(5, 3), "full": Size(10, 10)}


class Altering(Client):
    """Hands the protocol, in place of its honest part of the sum, what it likes better."""

    def altered(self, announced: Announcement, start: NDArray[np.float32], honest: Floats) -> Floats:
        """That, in the same units, given the model of the round; cut to the plan's bound like any update. By default
        its honest part.
        """
        return honest

    def _begin(self, announced: Announcement, request: bytes) -> bytes:
        reply = super()._begin(announced, request)
        if self._attempt is not None and (session := self._attempt.session) is not None:
            mine, start = session._contribution, self._attempt.start
            session._contribution = replace(
                mine, update=lambda: self.altered(announced, start, mine.update()), noise=lambda: self._added(mine)
            )
        return reply

    def _added(self, honest: Contribution) -> Integers | None:
        return honest.noise()


class Saboteur(Altering):
    """Sends ``wanted``, uncut: as if it were noise, which is added in whole steps of the encoding, after all cuts."""

    _steps: NDArray[np.int64] | None = None

    def wanted(self, announced: Announcement, start: NDArray[np.float32], honest: Floats) -> Floats:
        """What it wants in the sum in place of its ``honest`` part, in the same units; by default just that."""
        return honest

    def altered(self, announced: Announcement, start: NDArray[np.float32], honest: Floats) -> Floats:
        coder = protection.parameters(announced.plan)
        most = _OF_THE_RANGE * coder.bound * coder.clients
        wanted: Vector = np.clip(self.wanted(announced, start, honest).astype(np.float64), -most, most)
        self._steps = np.rint(wanted / coder.step).astype(np.int64)
        return np.zeros_like(honest)

    def _added(self, honest: Contribution) -> Integers | None:
        return self._steps


def shares(clients: int) -> dict[str, Dataset]:
    """80 digits for each client."""
    digits = private_digits()
    names = [SABOTEUR, *(f"honest-{number:02d}" for number in range(clients - 1))]
    cuts = [slice(place * _PER_CLIENT, (place + 1) * _PER_CLIENT) for place in range(clients)]
    return {name: Dataset(digits.features[cut], digits.labels[cut]) for name, cut in zip(names, cuts, strict=True)}


def training_of(setting: Setting) -> Training:
    """What honest clients do."""
    return setting.mechanism(STEPS)


def trained(setting: Setting, size: Size, dishonest: Mapping[str, type[Client]]) -> tuple[Scene, View]:
    """A federation after all its rounds, and what the server saw of the last."""
    scene = Scene(
        setting,
        linear,
        shares(size.clients),
        mechanism=training_of(setting),
        learning_rate=RATE,
        rounds=size.rounds,
        dishonest=dishonest,
    )
    views = [scene.round() for _ in range(size.rounds)]
    return scene, views[-1]


def accuracy(scene: Scene, test: Dataset | None = None) -> float:
    """Of the model that honest clients have, on public digits or on ``test``."""
    return evaluation.accuracy(scene.module(scene.model_of("honest-00")), test or public_digits())


def loudness(view: View) -> float | None:
    """The norm of the saboteur's upload over the median of the others'; None where the server reads none.

    Only under the protections that show the server each update; elsewhere it is told noise.
    """
    if view.plan.protection != "plain":
        return None
    norms = {
        name: float(np.linalg.norm(update)) for name in view.uploads if (update := view.update_of(name)) is not None
    }
    return norms.pop(SABOTEUR) / float(np.median(list(norms.values())))


class Reasons(NamedTuple):
    """Why one dishonest client is not stopped, and what would help.

    ``seen``: where the server sees each update; ``clipped``: where clients clip theirs; ``hidden``: under masks or
    encryption. ``look``: what a server that sees could do; ``answer``: what is left where it does not.
    """

    seen: str
    clipped: str
    hidden: str
    look: str
    answer: str

    def why(self, setting: Setting) -> str:
        """Why it ends so under this setting."""
        if setting.level is not None:
            return self.clipped
        return self.seen if setting.protection.kind == "plain" else self.hidden

    def remedy(self, setting: Setting) -> str:
        """What would help there."""
        return self.look if setting.protection.kind == "plain" else self.answer
