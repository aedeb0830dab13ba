"""Analytic inversion: for one record, each row of a linear layer's weight gradient is the layer's input times the
bias's gradient, so that their quotient is the input, exactly (Phong et al., IEEE TIFS 2018, section III).

Here every client trains one step on one record. Of a sum of updates the quotient is a sum of inputs, each with a weight
that the adversary does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from torch import nn

from securefl.attacks.cell import Cell, Effort, Figure, Verdict
from securefl.attacks.pictures import SIDE, Pixels, mean_picture, nearest, pair, pixels, private_digits, psnr, shown
from securefl.attacks.scene import Scene, Vector, View
from securefl.attacks.settings import SETTINGS, Setting
from securefl.data import Dataset

NAME: Final = "analytic inversion"
SOURCE: Final = "Phong et al., IEEE TIFS 2018, section III"
ADVERSARY: Final = "a server that follows the protocol and reads what it is sent"

RECOGNISED: Final = 20.0
"""PSNR in dB from which the attack succeeded: an error of a tenth of the range of a pixel."""

MARGIN: Final = 2.0
"""dB above the mean picture, up to which the attack failed: what is there, any blend of digits has."""

_COHORTS: Final = (5, 20)
_UNITS: Final = 32
_DRAWS: Final[dict[Effort, int]] = {"quick": 1, "full": 8}
_WHY: Final = {
    "plain": "the server reads each client's update, and an update of one record is that record",
    "secagg": "an upload is masked, and of the sum the quotient is a blend of all clients' records",
    "ckks-unmasked": "the server alone reads neither updates nor their sum, and guesses the mean picture; "
    "with any one client's key it would read what it reads without protection",
    "ckks": "the server alone reads neither updates nor their sum, and guesses the mean picture",
    "record-dp": "the server reads each update, and its noise is larger than the record's clipped gradient",
    "client-dp": "an upload is masked, and the sum is noised and a blend of all clients' records",
}
_REMEDY: Final = "secure aggregation, or record-level noise; more than one record a step only blends them"


def cells(effort: Effort) -> Iterator[Cell]:
    """One a setting: mean PSNR of the adversary's guesses at all clients' records, for 5 clients and for 20."""
    for setting in SETTINGS:
        small, large = (attacked(setting, clients, _DRAWS[effort]) for clients in _COHORTS)
        found = verdict(small.psnr, small.baseline)
        yield Cell(
            NAME,
            setting.name,
            found,
            (*small.figures(_COHORTS[0]), *large.figures(_COHORTS[1])),
            _WHY[setting.name],
            "" if found == "green" else _REMEDY,
            pair(small.originals[0], small.guesses[0]),
        )


def verdict(reached: float, baseline: float) -> Verdict:
    """What a PSNR says, in dB, beside that of the mean picture."""
    if reached >= RECOGNISED:
        return "red"
    return "green" if reached <= baseline + MARGIN else "amber"


def inverted(update: Vector) -> Pixels:
    """The input of the first layer that an update tells, shape (1, pixels): by the unit whose bias moved most."""
    weights, bias = np.split(update[: _UNITS * (SIDE**2 + 1)], [_UNITS * SIDE**2])
    unit = int(np.abs(bias).argmax())
    with np.errstate(divide="ignore", invalid="ignore"):  # nobody moved: shown as grey
        return shown(weights.reshape(_UNITS, -1)[unit] / bias[unit])[None]


class Attacked:
    """Records and the guesses at them, row by row; ``psnr`` of these and ``baseline`` of the mean picture, in dB."""

    def __init__(self, originals: Pixels, guesses: Pixels) -> None:
        self.originals, self.guesses = originals, guesses
        self.psnr = float(psnr(originals, guesses).mean())
        self.baseline = float(psnr(originals, mean_picture()).mean())

    def figures(self, clients: int) -> tuple[Figure, Figure]:
        """Both, named for so many clients."""
        return (
            Figure(f"PSNR, {clients} clients", self.psnr, "dB"),
            Figure(f"PSNR of the mean picture, {clients} clients", self.baseline, "dB"),
        )


def attacked(setting: Setting, clients: int, draws: int) -> Attacked:
    """The attack on federations of so many clients, each draw with other records and another model."""
    found = [_one(setting, clients, draw) for draw in range(draws)]
    return Attacked(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _one(setting: Setting, clients: int, draw: int) -> tuple[Pixels, Pixels]:
    records = private_digits()
    rows = range(draw * clients, (draw + 1) * clients)
    data = {
        f"client-{row:03d}": Dataset(records.features[row : row + 1], records.labels[row : row + 1]) for row in rows
    }
    scene = Scene(setting, _model, data, mechanism=setting.mechanism(), learning_rate=1.0, seed=draw)
    view, originals = scene.round(), pixels(records)[rows.start : rows.stop]
    guesses = [_guess(view, name, original[None]) for name, original in zip(sorted(data), originals, strict=True)]
    return originals, np.concatenate(guesses)


def _guess(view: View, client: str, original: Pixels) -> Pixels:
    """From the client's upload or from the mean of all: whichever comes nearer, as if the adversary could tell."""
    seen = [update for update in (view.update_of(client), view.mean_update) if update is not None]
    return nearest(original, np.concatenate([inverted(update) for update in seen])) if seen else mean_picture()


def _model() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, _UNITS), nn.Sigmoid(), nn.Linear(_UNITS, 10))
