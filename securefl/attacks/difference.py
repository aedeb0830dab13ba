"""Sum difference: two rounds over one model, the second without the victim; where training is deterministic, the first
sum less the second is the victim's update, whatever hid each of its parts.

Owners may refuse to open a second sum of a round, or over a model; they are then asked a second way: the server moves
every parameter by 2**-20 of itself and says that this is the next round, which no client can tell from a round that
changed little (So et al., AAAI 2023, on what the sums of several rounds reveal).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl import vector
from securefl.attacks.cell import Cell, Effort, Figure
from securefl.attacks.scene import VICTIM, Scene, Vector
from securefl.attacks.settings import SETTINGS, Setting
from securefl.attacks.updates import RATE, graded, linear, odd_one_out, recovered, share_figure, true_update
from securefl.errors import RoundFailed
from securefl.policy import Policy, SameCohort

NAME: Final = "sum difference"
NAMES: Final[dict[SameCohort, str]] = {
    "never": NAME,
    "round": f"{NAME}, owners open one sum a round",
    "plan": f"{NAME}, owners demand one cohort",
}
SOURCE: Final = "So et al., AAAI 2023 (arXiv 2106.03328)"
ADVERSARY: Final = "a server that asks for a second sum without the victim"

HAIR: Final = 2.0**-20
"""By how much of itself every parameter is moved: more than float32 rounds away, and next to nothing."""

_OTHERS: Final[dict[Effort, int]] = {"quick": 4, "full": 19}

_MASKED: Final[dict[SameCohort, str]] = {
    "never": "masks hide what is in a sum, not the difference of two",
    "round": "all who helped to open the first sum refuse a second over the same model; a model moved by a hair and "
    "called the next round is one that nobody can tell from an honest one",
    "plan": "owners who demand one cohort open no second sum without the victim, in any round",
}
_CKKS: Final = "the server alone reads no sum; with one client's key it would meet what it meets under secagg"
_UNMASKED: Final = "owners agree on whose sum is opened only where there are masks"
_OPEN: Final = "the server reads each update as it comes and needs no difference; owners' policies are about sums"
_NOISED: Final = "noise in both sums is larger than one client's clipped update"
_REMEDY: Final = "owners with same_cohort = 'plan', at the price that who leaves ends the run; or client-level noise"


def cells(effort: Effort) -> Iterator[Cell]:
    """Three a setting: for owners with the default policy, for such that open one sum a round, and one cohort's."""
    for rule in NAMES:
        for setting in SETTINGS:
            if rule != "never" and not setting.protection.masked:
                yield Cell(NAMES[rule], setting.name, "none", (), _UNMASKED)
            else:
                yield cell(setting, rule, _OTHERS[effort])


def cell(setting: Setting, rule: SameCohort, others: int = 4) -> Cell:
    """The attack on owners of one policy: over the very same model, then over one that was moved by a hair."""
    again, near = (differences(setting, rule, hair, others) for hair in (0.0, HAIR))
    upload = recovered(near.upload, near.truth)
    best = max(again.known, near.known, upload)
    figures = (
        share_figure("victim's update known", best),
        share_figure("same model again", again.known),
        share_figure("model moved by a hair", near.known),
        share_figure("by the victim's upload", upload),
        Figure("second sums refused, of 2", float(again.refused + near.refused)),
    )
    found = graded(best)
    return Cell(NAMES[rule], setting.name, found, figures, _why(setting, rule), "" if found == "green" else _REMEDY)


@dataclass(frozen=True)
class Difference:
    """``guess``: first sum less second; None where the server reads no sum, or was refused one."""

    truth: Vector = field(repr=False)
    upload: Vector | None = field(repr=False)
    guess: Vector | None = field(repr=False)
    refused: bool

    @property
    def known(self) -> float:
        """How much of the victim's update that is."""
        return recovered(self.guess, self.truth)


def differences(setting: Setting, rule: SameCohort, hair: float, others: int = 4) -> Difference:
    """Two sums, the second without the victim and, where the server has a model to announce, over the first's."""
    scene = federated(setting, rule, others)
    start = vector.flatten(scene.module())
    truth = true_update(linear, start, odd_one_out()[VICTIM])
    view = scene.round()
    upload, first = view.update_of(VICTIM), scene.total(view)
    if scene.server.model() is not None:
        scene.server.announce(moved(start, hair))
    try:
        second = scene.total(scene.round(without=(VICTIM,)))
    except RoundFailed:
        return Difference(truth, upload, None, refused=True)
    guess = None if first is None or second is None else first - second
    return Difference(truth, upload, guess, refused=False)


def federated(setting: Setting, rule: SameCohort, others: int = 4) -> Scene:
    """A federation of owners with this policy."""
    return Scene(
        setting,
        linear,
        odd_one_out(others),
        mechanism=setting.mechanism(),
        learning_rate=RATE,
        rounds=2,
        policy=Policy(same_cohort=rule),
    )


def moved(parameters: NDArray[np.float32], hair: float) -> NDArray[np.float32]:
    """Every parameter moved by this share of itself."""
    return parameters * np.float32(1 + hair)


def _why(setting: Setting, rule: SameCohort) -> str:
    if setting.protection.sealed:
        return _CKKS
    if not setting.protection.masked:
        return _OPEN
    return _NOISED if setting.level is not None else _MASKED[rule]
