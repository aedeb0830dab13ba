"""Imprint: a planted layer sorts a batch's records into bins, and hands each record out that is alone in its bin.

The server announces a first layer whose rows all measure a picture's brightness and whose biases are quantiles of it.
A record moves the rows below its brightness by the same multiple of itself, so that neighbouring rows differ by the
records between their quantiles, and by nothing else (Fowl et al., ICLR 2022, section 3). Sums of clients' updates are
sorted no less: secure aggregation hides whose a record is, not the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from securefl import vector
from securefl.attacks.cell import Cell, Effort, Figure, Verdict
from securefl.attacks.pictures import (
    SIDE,
    Pixels,
    identified,
    mean_picture,
    nearest,
    pair,
    pixels,
    private_digits,
    psnr,
    public_digits,
    shown,
)
from securefl.attacks.scene import Scene, Vector, View
from securefl.attacks.settings import SETTINGS, Setting
from securefl.data import Dataset
from securefl.errors import RoundFailed
from securefl.policy import Policy

NAME: Final = "imprint"
SOURCE: Final = "Fowl et al., ICLR 2022, section 3"
ADVERSARY: Final = "a server that chooses the model's architecture and parameters, and follows the protocol otherwise"

MOST: Final = 0.25
"""Share of identified records from which the attack succeeded: many of a batch, where one would be harm enough."""

FEW: Final = 0.01
"""Share below which it failed: not one record in a hundred."""

_CLIENTS: Final = 5
_PIXELS: Final = SIDE**2
_CLASSES: Final = 10
_UNITS: Final = 256
_RECORDS: Final[dict[Effort, int]] = {"quick": 8, "full": 32}  # of each client
_EMPTY: Final = 1e-3  # of the fullest bin: what rounding leaves in one without records
_SEALED: Final = "the server cannot plant a model that clients keep among themselves, nor read what they send"
_WHY: Final = {
    "plain": "the server plants the layer and reads each client's update: whose a record is, it knows, too",
    "secagg": "the layer sorts the sum's records as it does one client's; only whose they are stays hidden",
    "ckks-unmasked": _SEALED,
    "ckks": _SEALED,
    "record-dp": "each record's clipped gradient is spread over many rows, and every entry is noised",
    "client-dp": "the planted layer's rows differ by less than the noise of the sum",
}
_REMEDY: Final = (
    "an allow-list of architectures in each owner's policy that has no wide first layer: owners refuse (measured here "
    "with a small convolutional model); or record-level noise. Secure aggregation does not stop it"
)


def cells(effort: Effort) -> Iterator[Cell]:
    """One a setting: the share of all clients' records that are identified; where it is red, what a policy changes."""
    for setting in SETTINGS:
        originals, guesses = attacked(setting, _RECORDS[effort])
        best, found = nearest(originals, guesses), identified(originals, guesses)
        share = float(found.mean())
        figures = (
            Figure("identified", share, "share"),
            Figure("PSNR", float(np.median(psnr(originals, best))), "dB"),
            Figure("PSNR of the mean picture", float(np.median(psnr(originals, mean_picture()))), "dB"),
        )
        says, shown_row = verdict(share), int(found.argmax())
        yield Cell(
            NAME,
            setting.name,
            says,
            (*figures, *(() if says == "green" else defended(setting))),
            _WHY[setting.name],
            "" if says == "green" else _REMEDY,
            pair(originals[shown_row], best[shown_row]),
        )


def verdict(share: float) -> Verdict:
    """What a share of identified records says."""
    if share >= MOST:
        return "red"
    return "green" if share < FEW else "amber"


def attacked(setting: Setting, records: int) -> tuple[Pixels, Pixels]:
    """All clients' records, so many each, and the server's guesses at them, after one round with the planted layer."""
    data = _data(records)
    scene = Scene(setting, wide, data, mechanism=setting.mechanism(), learning_rate=1.0)
    originals = np.concatenate([pixels(own) for own in data.values()])
    with suppress(ValueError):  # where the server holds no model, the round goes on with the clients' own
        scene.server.announce(planted())
    updates = _readable(scene.round(), setting, list(data))
    return originals, np.concatenate([handed_out(update) for update in updates]) if updates else mean_picture()


def defended(setting: Setting) -> tuple[Figure, Figure]:
    """The same round with owners who allow the small convolutional model only; and a round of that model with them."""
    policy = Policy(architectures=(vector.architecture(small()),))
    scene = _scene(setting, wide)
    scene.server.announce(planted())
    for client in scene.clients.values():
        client.policy = policy
    allowed = _scene(setting, small, policy)
    return (
        Figure("uploads under an allow-list", _uploads(scene) / _CLIENTS, "share"),
        Figure("uploads of the allowed model", _uploads(allowed) / _CLIENTS, "share"),
    )


def planted() -> NDArray[np.float32]:
    """The parameters that the server announces: quantiles of the public digits' brightness, one a unit."""
    brightness = pixels(public_digits()).mean(axis=1)
    thresholds = np.quantile(brightness, np.arange(_UNITS) / _UNITS)
    rows = np.full((_UNITS, _PIXELS), 1 / _PIXELS)
    # The same for all units, so that a record moves each by the same; small, so that no record is predicted well yet.
    outputs = np.repeat(np.linspace(-1, 1, _CLASSES)[:, None], _UNITS, axis=1) / _UNITS
    parts = (rows, -thresholds, outputs, np.zeros(_CLASSES))
    return np.concatenate([part.ravel() for part in parts]).astype(np.float32)


def handed_out(update: Vector) -> Pixels:
    """The guesses, one a bin that is not empty: differences of neighbouring rows by those of their biases."""
    size = _UNITS * _PIXELS
    rows = np.append(update[:size].reshape(_UNITS, _PIXELS), np.zeros((1, _PIXELS)), axis=0)
    moved, shares = -np.diff(rows, axis=0), -np.diff(np.append(update[size : size + _UNITS], 0.0))
    full = np.abs(shares) > _EMPTY * np.abs(shares).max()
    return shown(moved[full] / shares[full, None]) if full.any() else mean_picture()


def wide() -> nn.Module:
    """What the malicious server asks for: it looks like any small network."""
    return nn.Sequential(nn.Flatten(), nn.Linear(_PIXELS, _UNITS), nn.ReLU(), nn.Linear(_UNITS, _CLASSES))


def small() -> nn.Module:
    """What the careful owner allows: its one linear layer sees sixteen means over the whole picture."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()),
        *(nn.AvgPool2d(SIDE // 2), nn.Flatten(), nn.Linear(16, _CLASSES)),
    )


def _data(records: int) -> dict[str, Dataset]:
    whole = private_digits()
    parts = {f"client-{i}": slice(i * records, (i + 1) * records) for i in range(_CLIENTS)}
    return {name: Dataset(whole.features[part], whole.labels[part]) for name, part in parts.items()}


def _scene(setting: Setting, model: Callable[[], nn.Module], policy: Policy | None = None) -> Scene:
    """A federation of a few records each."""
    return Scene(setting, model, _data(2), mechanism=setting.mechanism(), learning_rate=1.0, policy=policy)


def _readable(view: View, setting: Setting, clients: list[str]) -> list[Vector]:
    """The updates that the server can read: everybody's, or their mean where they are masked."""
    own = [view.mean_update] if setting.protection.masked else [view.update_of(client) for client in clients]
    return [update for update in own if update is not None]


def _uploads(scene: Scene) -> int:
    """How many clients send an update in one round."""
    with suppress(RoundFailed):
        scene.round()
    return len(scene.attempted())
