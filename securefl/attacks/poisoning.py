"""Poisoning: one client sends the opposite of its update, as it is or ten times as long, in every round.

One client can move a mean wherever it likes (Blanchard et al., NeurIPS 2017, lemma 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from protocols.encoding import Floats
from securefl.announcement import Announcement
from securefl.attacks.cell import Cell, Effort, Figure, Verdict
from securefl.attacks.saboteurs import SABOTEUR, SIZES, Reasons, Saboteur, Size, accuracy, loudness, trained
from securefl.attacks.settings import SETTINGS, Setting
from securefl.attacks.updates import share_figure

NAME: Final = "poisoning"
SOURCE: Final = "Blanchard et al., NeurIPS 2017, lemma 1"
ADVERSARY: Final = "one client, which follows the protocol and sends what it likes"

RUINED: Final = 0.2
"""Accuracy lost from which the attack succeeded: no choice of rounds or learning rate costs that much."""

HARMED: Final = 0.05
"""Accuracy lost up to which it failed: below that, runs of three rounds differ by themselves."""

_REASONS: Final = Reasons(
    seen="nothing stops a client's update from being what it likes, but the server sees each, and could look",
    clipped=("the L2 clip is made by each client's own code: a client that leaves it out counts as much as it likes"),
    hidden=(
        "the server sees no single update, so that a long one stands out nowhere; each client cuts its own at"
        " the bound, and one that does not is bound by the ring's range only"
    ),
    look="a server that looks at norms and directions of updates before it adds them up",
    answer=(
        "clients that answer for what they send; a public test set shows the harm, not the culprit, and "
        "robust aggregation needs updates in the open"
    ),
)


class Flips(Saboteur):
    """Sends the opposite of its update, ``factor`` times as long."""

    factor: ClassVar[float] = 1.0

    def wanted(self, announced: Announcement, start: NDArray[np.float32], honest: Floats) -> Floats:
        return -self.factor * honest


class Boosts(Flips):
    """The same, ten times as long."""

    factor: ClassVar[float] = 10.0


def cells(effort: Effort) -> Iterator[Cell]:
    """One a setting: the accuracy that the main task loses."""
    for setting in SETTINGS:
        yield cell(setting, SIZES[effort])


def cell(setting: Setting, size: Size) -> Cell:
    """Three federations: all honest, one client flipping signs, and one flipping and scaling."""
    honest, _ = trained(setting, size, {})
    flipped, _ = trained(setting, size, {SABOTEUR: Flips})
    boosted, view = trained(setting, size, {SABOTEUR: Boosts})
    without, flip, boost = accuracy(honest), accuracy(flipped), accuracy(boosted)
    lost = without - min(flip, boost)
    figures = [
        share_figure("accuracy lost", lost),
        share_figure("accuracy without attack", without),
        share_figure("with the sign flipped", flip),
        share_figure("flipped and scaled tenfold", boost),
    ]
    if (norm := loudness(view)) is not None:
        figures.append(Figure("norm of the scaled upload over the others'", norm))
    found = verdict(lost)
    return Cell(
        NAME,
        setting.name,
        found,
        tuple(figures),
        _REASONS.why(setting),
        "" if found == "green" else _REASONS.remedy(setting),
    )


def verdict(lost: float) -> Verdict:
    """Of the accuracy that the main task lost."""
    return "red" if lost >= RUINED else "amber" if lost >= HARMED else "green"
