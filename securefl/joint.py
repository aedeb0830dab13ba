"""Training of several clients of one process in one pass, between what each does for itself before and after.

What a client releases, charges and remembers is as if it trained alone (:mod:`securefl.training.cohort`); what does not
fit into one pass does train alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain, islice
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from securefl.contribution import Material
from securefl.plan import Plan
from securefl.privacy.noise import Random

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Task:
    """One client's training in one attempt, charged for. ``random`` gives its source from the beginning."""

    material: Material = field(repr=False)
    plan: Plan = field(repr=False)
    start: NDArray[np.float32] = field(repr=False)
    random: Callable[[], Random] = field(repr=False)
    _done: tuple[NDArray[np.float32], Random] | None = field(default=None, repr=False)

    def done(self, update: NDArray[np.float32], random: Random) -> None:
        """It was trained beside others, and read so far from ``random``."""
        self._done = (update, random)

    def update(self) -> NDArray[np.float32] | NDArray[np.float64]:
        """The vector of the round: :meth:`Material.update`, with training unless that is done."""
        if self._done is None:
            return self.material.update(self.plan, self.start, self.random())
        update, random = self._done
        return self.material.update(self.plan, self.start, random, trained=update)


class Due(Exception):
    """In place of a client's training, where it is to be trained beside others."""

    def __init__(self, task: Task) -> None:
        super().__init__("training is due")
        self.task = task


Suits = Callable[[Material, Plan], bool]


class Preparing(Protocol):
    """A client that can be asked for its training before its reply (:meth:`securefl.client.Client.prepare`)."""

    def prepare(self, request: bytes, suits: Suits) -> Task | None: ...


class Joint:
    """Trains clients of this process together before they are asked for their inputs, as many as fit in memory."""

    def __init__(self, clients: Mapping[str, Preparing]) -> None:
        self._clients = dict(clients)
        self._known: dict[int, tuple[Callable[[], nn.Module], bool]] = {}  # by factory, which is kept alive

    def ahead(self, requests: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        """The same requests in order, each once the training that it asks for is done."""
        waiting: list[tuple[str, bytes]] = []
        tasks: list[Task] = []
        several = iter(requests)
        first = list(islice(several, 2))
        if len(first) < 2:  # one alone has nothing to gain
            yield from first
            return
        for name, request in chain(first, several):
            task = self._clients[name].prepare(request, self._suits)
            waiting.append((name, request))
            tasks += [] if task is None else [task]
            if not tasks or len(tasks) >= _most(tasks[0].plan):
                train(tasks)
                yield from waiting
                waiting, tasks = [], []
        train(tasks)
        yield from waiting

    def _suits(self, material: Material, plan: Plan) -> bool:
        from securefl import vector
        from securefl.training import cohort, stacked

        if plan.strategy.controlled or _most(plan) == 1 or not cohort.descends(plan.at(1).optimizer):
            return False
        if id(material.model) not in self._known:
            known = stacked.known(vector.build(material.model, plan.model_seed))
            self._known[id(material.model)] = (material.model, known)
        return self._known[id(material.model)][1]


def train(tasks: Iterable[Task]) -> None:
    """Train those together that can be; where that fails or ends in NaN, each is left to train alone, and to say so."""
    groups: dict[Hashable, list[Task]] = {}
    for task in tasks:
        groups.setdefault(_alike(task), []).append(task)
    for group in groups.values():
        if len(group) > 1:
            _train(group)


def _train(group: Sequence[Task]) -> None:
    from securefl.training import cohort

    first = group[0]
    try:
        sources = [task.random() for task in group]
        members = [cohort.Member(task.material.data, source) for task, source in zip(group, sources, strict=True)]
        module = first.material.module(first.plan, first.start)
        updates = cohort.train(module, members, first.plan.mechanism, first.plan.optimizer, first.material.device)
    except Exception:
        # One client's owner is to read what was wrong with its own records or code, and not with another's.
        return
    for task, update, source in zip(group, updates, sources, strict=True):
        if np.isfinite(update).all():
            task.done(update, source)


def _most(plan: Plan) -> int:
    from securefl.training import cohort

    return cohort.most(plan.dimension)


def _alike(task: Task) -> Hashable:
    """Equal for what can be trained in one pass: one plan, model and start, one device, records of one shape."""
    material = task.material
    shapes = [(part.dtype.str, part.shape[1:]) for part in (material.data.features, material.data.labels)]
    start = sha256(task.start.tobytes()).digest()
    return task.plan.digest(), start, id(material.model), material.device, *shapes
