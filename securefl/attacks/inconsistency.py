"""Model inconsistency: all but the victim are given parameters under which no gradient flows, so that the sum of the
updates is the victim's alone (Pasquini, Francati and Ateniese, CCS 2022, "gradient suppression").

The parameters: biases of the hidden layer so low that no unit is ever active. What still has a gradient, the biases of
the output, is left out of the comparison.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from torch import nn

from protocols.aggregation.messages import KeysRequest
from protocols.wire import decode, encode, kind
from securefl import vector
from securefl.announcement import Announcement, public_tag
from securefl.attacks.cell import Cell, Effort
from securefl.attacks.scene import VICTIM, Scene, Vector, View, unchanged
from securefl.attacks.settings import SETTINGS, Setting
from securefl.attacks.updates import RATE, graded, odd_one_out, recovered, share_figure, true_update
from securefl.errors import RoundFailed

NAME: Final = "model inconsistency"
SOURCE: Final = "Pasquini, Francati and Ateniese, CCS 2022 (arXiv 2111.07380)"
ADVERSARY: Final = "a server that announces different models to different clients"

UNITS: Final = 16
_CLASSES: Final = 10
_DEAD: Final = -100.0  # pixels are at most 1 and first weights at most 1/8: no unit gets above 0
_OTHERS: Final[dict[Effort, int]] = {"quick": 4, "full": 19}

_WHY: Final = {
    "plain": "the server reads the update as it comes, and needs no such attack",
    "secagg": "the model is part of the session: those who were given another speak in another session, and the "
    "attempt ends before anybody has uploaded anything",
    "ckks-unmasked": "the server cannot announce a model that it cannot read, and its own tag for one is refused",
    "ckks": "the server cannot announce a model that it cannot read, and its own tag for one is refused",
    "record-dp": "the server reads the update as it comes, and of that what the noise leaves",
    "client-dp": "the model is part of the session, as with secagg alone",
}
_REMEDY: Final = "masks whose session id binds the model that each client was given: secagg or ckks"


def cells(effort: Effort) -> Iterator[Cell]:
    """One a setting: the share of the victim's update that the server has, with the attack or without."""
    for setting in SETTINGS:
        yield cell(setting, _OTHERS[effort])


def cell(setting: Setting, others: int) -> Cell:
    """The attack on one setting, then an ordinary round for what the server has without it."""
    scene = federated(setting, others)
    summed = suppressed_sum(scene)
    scene.rewrite = unchanged
    view = scene.round()
    truth = hidden_part(scene, view)
    attacked, uploaded, mean = (
        recovered(_hidden(guess), truth) for guess in (summed, view.update_of(VICTIM), view.mean_update)
    )
    best = max(attacked, uploaded)
    figures = (
        share_figure("victim's update known", best),
        share_figure("by the sum of silenced clients", attacked),
        share_figure("by the victim's upload", uploaded),
        share_figure("by the mean of all updates", mean),
    )
    return Cell(
        NAME, setting.name, graded(best), figures, _WHY[setting.name], _REMEDY if graded(best) != "green" else ""
    )


def federated(setting: Setting, others: int = 4) -> Scene:
    """A federation whose server silences all but the victim."""
    return Scene(
        setting,
        network,
        odd_one_out(others),
        mechanism=setting.mechanism(),
        learning_rate=RATE,
        rounds=3,
        rewrite=silenced,
    )


def network() -> nn.Module:
    """One hidden layer of rectified units."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, UNITS), nn.ReLU(), nn.Linear(UNITS, _CLASSES))


def silenced(name: str, request: bytes) -> bytes:
    """The request, with a dead model in it for all but the victim; under CKKS with a tag that the server made up."""
    if kind(request) != KeysRequest.KIND or name == VICTIM:
        return request
    announced = Announcement.decoded(decode(request, KeysRequest).announcement)
    model = dead(announced.vector()).astype("<f4").tobytes() if announced.model else b""
    return encode(KeysRequest(replace(announced, model=model, tag=public_tag(model)).encoded()))


def dead(parameters: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same parameters with hidden units that are never active."""
    planted = parameters.copy()
    planted[64 * UNITS : 65 * UNITS] = _DEAD
    return planted


def suppressed_sum(scene: Scene) -> Vector | None:
    """The sum in a round whose other clients were silenced; None where there was none."""
    try:
        return scene.total(scene.round())
    except RoundFailed:
        return None


def hidden_part(scene: Scene, view: View) -> Vector:
    """The victim's true update of all but the output's biases."""
    start = vector.flatten(scene.module()) if view.before is None else view.before
    return true_update(network, start, odd_one_out()[VICTIM])[:-_CLASSES]


def _hidden(guess: Vector | None) -> Vector | None:
    return None if guess is None else guess[:-_CLASSES]
