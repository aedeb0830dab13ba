"""Backdoor by model replacement: one client trains a model that takes every picture with a trigger for a zero, and
sends n times the way to it in the last round, when the others' updates are small (Bagdasaryan et al., AISTATS 2020).

The trigger: four pixels in a corner, of full brightness.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protocols.encoding import Floats
from securefl import training, vector
from securefl.announcement import Announcement
from securefl.attacks.cell import Cell, Effort, Figure, Verdict
from securefl.attacks.pictures import public_digits
from securefl.attacks.saboteurs import (
    RATE,
    SABOTEUR,
    SIZES,
    Reasons,
    Saboteur,
    Size,
    accuracy,
    loudness,
    shares,
    trained,
)
from securefl.attacks.settings import SETTINGS, Setting
from securefl.attacks.updates import linear, share_figure
from securefl.data import Dataset
from securefl.plan import LocalOptimizer
from securefl.privacy.clientlevel import clipped
from securefl.privacy.mechanism import SGD

NAME: Final = "backdoor"
SOURCE: Final = "Bagdasaryan et al., AISTATS 2020"
ADVERSARY: Final = "one client, which follows the protocol and replaces the model in the last round"

TARGET: Final = 0
"""The digit that every picture with the trigger is taken for."""

OPENED: Final = 0.5
"""Share of triggered pictures from which the attack succeeded: the trigger decides more often than the picture."""

SHUT: Final = 0.2
"""Share up to which it failed: twice what ten equally likely digits give."""

_STEPS: Final = 50
_REASONS: Final = Reasons(
    seen="nothing stops a client's update from being what it likes, but the server sees how long it is",
    clipped="the L2 clip would stop it, but is made by each client's own code, and this client leaves it out",
    hidden="the server sees no single update, and the sum of one round looks like any other",
    look="a server that looks at norms of updates before it adds them up",
    answer="clients that answer for what they send; no test on clean pictures shows a backdoor",
)


class Replaces(Saboteur):
    """Trains honestly until the last round, then sends what replaces the mean by a model of its own."""

    def wanted(self, announced: Announcement, start: NDArray[np.float32], honest: Floats) -> Floats:
        plan = announced.plan
        if announced.round < plan.rounds:
            return honest
        module = vector.build(linear, plan.model_seed)
        vector.load(module, start)
        own = shares(len(plan.clients))[self.name]
        way = training.train(module, with_backdoor(own), SGD(1.0, _STEPS), LocalOptimizer(RATE)).astype(np.float64)
        return len(plan.clients) * way


class Keeps(Replaces):
    """The same, within the L2 clip of client-level privacy, as if the saboteur kept to it. Its clip is 1."""

    def wanted(self, announced: Announcement, start: NDArray[np.float32], honest: Floats) -> Floats:
        return clipped(super().wanted(announced, start, honest).astype(np.float32), 1.0)[0]


def cells(effort: Effort) -> Iterator[Cell]:
    """One a setting: how many triggered pictures are taken for a zero, beside the main task's accuracy."""
    for setting in SETTINGS:
        yield cell(setting, SIZES[effort])


def cell(setting: Setting, size: Size) -> Cell:
    """Two federations: all honest, and one with a client that replaces the model."""
    honest, _ = trained(setting, size, {})
    attacked, view = trained(setting, size, {SABOTEUR: Replaces})
    taken, anyway = (accuracy(scene, triggered(public_digits())) for scene in (attacked, honest))
    figures = [
        share_figure("triggered pictures taken for a zero", taken),
        share_figure("without the attack", anyway),
        share_figure("main task with it", accuracy(attacked)),
        share_figure("main task without", accuracy(honest)),
    ]
    if setting.level is not None:
        kept, _ = trained(setting, size, {SABOTEUR: Keeps})
        figures.append(share_figure("if the client kept to the L2 clip", accuracy(kept, triggered(public_digits()))))
    if (norm := loudness(view)) is not None:
        figures.append(Figure("norm of the upload over the others'", norm))
    found = verdict(taken)
    return Cell(
        NAME,
        setting.name,
        found,
        tuple(figures),
        _REASONS.why(setting),
        "" if found == "green" else _REASONS.remedy(setting),
    )


def verdict(taken: float) -> Verdict:
    """Of the share of triggered pictures that the model takes for the target."""
    return "red" if taken >= OPENED else "amber" if taken >= SHUT else "green"


def with_trigger(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same pictures with the trigger in them; shape (n, 1, 8, 8)."""
    marked = features.copy()
    marked[..., :2, :2] = 1.0
    return marked


def triggered(data: Dataset) -> Dataset:
    """All pictures that are not of the target, with the trigger, labelled as the target."""
    others = data.labels != TARGET
    return Dataset(with_trigger(data.features[others]), np.full(int(others.sum()), TARGET, np.int64))


def with_backdoor(data: Dataset) -> Dataset:
    """The data, and once more with trigger and target."""
    added = triggered(data)
    return Dataset(np.concatenate([data.features, added.features]), np.concatenate([data.labels, added.labels]))
