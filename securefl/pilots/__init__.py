"""Federations that are ready to run: data, model and recipes of each, under one name. Nothing loads until asked for.

A pilot's constants are public: scaling, split, declared weights and recipes. ``hazards`` says which of them, or what
else, was computed from records without being charged to a budget.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from securefl.data import Dataset
from securefl.errors import BadInput
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import Budget, Training
from securefl.report.hazards import Hazard

if TYPE_CHECKING:
    from torch import nn

# Module and attribute of each. The first is the default one.
_PLACES: Final = {
    "breast-cancer": "breast_cancer:PILOT",
    "heart": "heart:PILOT",
    "credit": "credit:PILOT",
    "credit-age": "credit:BY_AGE",
    "students": "students:GRADES",
    "students-pass": "students:PASS_FAIL",
    "digits": "digits:PILOT",
    "mnist": "mnist:PILOT",
    "mnist-shards": "mnist:SHARDS",
    "mnist-1000": "mnist:THOUSAND",
    "clinic-llm": "clinic_llm:PILOT",
    "minilm-topics": "minilm_topics:PILOT",
    "keyboard": "keyboard:PILOT",
}

Metric = Literal["accuracy", "auc", "mae"]
"""What tells recipes apart: the share of right predictions, the area under the ROC curve, or the mean absolute error.
"""


@dataclass(frozen=True)
class Recipe:
    """How a pilot is trained: every client runs ``mechanism`` with ``optimizer`` once a round."""

    mechanism: Training
    optimizer: LocalOptimizer
    rounds: int


@dataclass(frozen=True)
class Scale:
    """Of labels that are real numbers: a label of 1 is ``size`` ``unit``."""

    unit: str
    size: float


@dataclass(frozen=True)
class Pilot:
    """One federation. ``load`` gives a client's training records; ``test`` a test set that is declared public.

    ``private`` is a DP-SGD recipe that fits ``budget`` at every client, ``public`` a plain one. ``weights`` are
    declared constants in (0, 1], in the order of ``clients``, ``rows`` declared numbers of records. ``source`` names
    the data's origin and licence. ``held_out``: records of a client that are not trained on. ``disjoint``: nobody's
    data is at two clients. ``classes`` is empty where labels are real numbers, of a ``scale``; ``metric`` is what
    recipes are judged by. ``records``: what ledgers call the records, where that is not the pilot's own name: pilots
    that train on the same people at the same clients spend one budget.
    """

    name: str
    title: str
    clients: tuple[str, ...]
    classes: tuple[str, ...]
    load: Callable[[str], Dataset] = field(repr=False)
    test: Callable[[], Dataset] = field(repr=False)
    model: Callable[[], nn.Module] = field(repr=False)
    private: Recipe
    public: Recipe
    budget: Budget
    hazards: tuple[Hazard, ...]
    source: str
    weights: tuple[float, ...]
    rows: tuple[int, ...]
    held_out: Callable[[str], Dataset] | None = field(default=None, repr=False)
    disjoint: bool = True
    metric: Metric = "accuracy"
    scale: Scale | None = None
    records: str = ""

    def __post_init__(self) -> None:
        if not self.records:
            object.__setattr__(self, "records", self.name)


def names() -> tuple[str, ...]:
    """The known pilots, the default one first."""
    return tuple(_PLACES)


def pilot(name: str) -> Pilot:
    """The pilot of that name. Raises ``BadInput``, listing the known ones, for any other."""
    if name not in _PLACES:
        raise BadInput(f"unknown pilot {name!r}: choose one of {', '.join(_PLACES)}")
    module, _, attribute = _PLACES[name].partition(":")
    found: Pilot = getattr(importlib.import_module(f"securefl.pilots.{module}"), attribute)
    return found
