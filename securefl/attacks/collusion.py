"""Collusion: the server works with one client, which hands over all that it has: its update, the model, its CKKS key.

Without masks any one key opens every upload (what is usually shipped as "homomorphic aggregation" has this shape); with
masks the key opens sums, and the client's own part can be taken out of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl import vector
from securefl.attacks.cell import Cell, Effort
from securefl.attacks.scene import VICTIM, Scene, Vector
from securefl.attacks.settings import SETTINGS, Setting
from securefl.attacks.updates import RATE, graded, linear, odd_one_out, recovered, share_figure, true_update

NAME: Final = "collusion with one key holder"
SOURCE: Final = "Bonawitz et al., CCS 2017, section 6: the server and a subset of the clients together"
ADVERSARY: Final = "a server that follows the protocol, and one client that hands over all it has"

COLLUDER: Final = "other-00"

_OTHERS: Final[dict[Effort, int]] = {"quick": 4, "full": 19}
_SUM_ONLY: Final = "what the client adds to the server's view is its own part of the sum; the rest stays a sum"
_WHY: Final = {
    "plain": "the server reads every update without any help",
    "secagg": _SUM_ONLY,
    "ckks-unmasked": "all clients hold one key, and each upload is a ciphertext under it: one client opens them all",
    "ckks": "the key opens the sum and, of an upload, what its masks leave, which is uniform",
    "record-dp": "the server reads every update as it comes, and of that what the noise leaves",
    "client-dp": _SUM_ONLY + ", and noised",
}
_REMEDY: Final = "masks, alone or over CKKS; colluders in the plan, for a sum that still hides after they are taken out"


def cells(effort: Effort) -> Iterator[Cell]:
    """One a setting: the share of the victim's update that server and client have together."""
    for setting in SETTINGS:
        yield cell(setting, _OTHERS[effort])


def cell(setting: Setting, others: int = 4) -> Cell:
    """One round, and all that the two can make of it."""
    data = odd_one_out(others)
    scene = Scene(setting, linear, data, mechanism=setting.mechanism(), learning_rate=RATE)
    start = vector.flatten(scene.module())
    view = scene.round()
    truth, own = (true_update(linear, start, data[name]) for name in (VICTIM, COLLUDER))
    total = _mean(scene, start) * len(data)
    opened, summed, rest = (
        recovered(guess, truth) for guess in (view.update_of(VICTIM, scene.key_of(COLLUDER)), total, total - own)
    )
    figures = (
        share_figure("victim's update known", max(opened, summed, rest)),
        share_figure("by its upload, with the key", opened),
        share_figure("by the sum", summed),
        share_figure("by the sum less the colluder's part", rest),
    )
    found = graded(figures[0].value)
    return Cell(NAME, setting.name, found, figures, _WHY[setting.name], "" if found == "green" else _REMEDY)


def _mean(scene: Scene, start: NDArray[np.float32]) -> Vector:
    """The mean update, by the model that the client has, whoever else has it."""
    after = scene.model_of(COLLUDER)
    return np.zeros(len(start)) if after is None else after.astype(np.float64) - start
