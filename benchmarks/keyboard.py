"""Next-word prediction by 209 roles of Shakespeare's plays: a federation, with and without client-level differential
privacy, beside a model of all roles' words in one place and beside trigrams of them.

Recall as in Hard et al. 2018: of all words that the roles say later, how many are the first, or one of the first three,
that are suggested. There is no punctuation; a word outside of the vocabulary is never suggested, and counts as missed.
Every model is given the same words before it: at most twenty, from the beginning of a row on.

Federations run by the real protocol, masks and all, in one process. Noise and cohorts are drawn anew in each run, from
the operating system; a seed is of the model's first values. ``quick``: few roles and rounds, which show that it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import nn

from benchmarks.rows import Row, value_row
from benchmarks.trigrams import Trigrams
from securefl import SGD, Budget, Client, Dataset, LocalOptimizer, SecAgg, Server, federate, training, vector
from securefl.learning import ALL, Cohort, Strategy
from securefl.pilots import keyboard
from securefl.plan import ClientLevel, PrivacyTerms
from securefl.privacy.mechanism import Unit
from securefl.protection import Protection

TITLE = "The next word: 209 roles of Shakespeare's plays"
Scores = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""From rows of ids, shape (n, length), to scores of each next one, (n, length, ids)."""


@dataclass(frozen=True)
class Recipe:
    """How a federation learns: so many rounds with so many roles each, local steps, and what the server does."""

    rounds: int
    cohort: Cohort
    mechanism: SGD
    optimizer: LocalOptimizer
    strategy: Strategy
    level: ClientLevel | None = None


@dataclass(frozen=True)
class Scale:
    """How much: roles, seeds, rounds at most, steps of the model in one place."""

    roles: int
    seeds: tuple[int, ...]
    rounds: int
    steps: int


WHOLE, QUICK = Scale(len(keyboard.CLIENTS), (0, 1, 2), 1000, 600), Scale(4, (0,), 1, 5)
# Rates are those that did best in a few rounds on the last rows of the training sets.
PLAIN: Final = Recipe(
    30, Cohort("fixed", 20), SGD(0.34, 3), LocalOptimizer(2.0), Strategy("fedavgm", learning_rate=1.0, momentum=0.7)
)
# Many roles a round, and each in three rounds at most: what noise leaves of a sum grows with how many are in it.
PRIVATE: Final = Recipe(
    *(8, Cohort("fixed", 70, participations=3), SGD(0.5, 1), LocalOptimizer(2.0), Strategy("fedavg", 3.0)),
    ClientLevel(noise_multiplier=0.5, clip=0.5),
)
CENTRAL: Final = LocalOptimizer(0.3, momentum=0.9)
_BATCH: Final = 32  # rows that a step in one place expects
DELTA: Final = 1e-4  # below one over the roles
_ROWS: Final = 64  # that are scored at once


def rows(quick: bool) -> list[Row]:
    """The rows of this subject; half an hour of one core, or a minute."""
    torch.set_num_threads(1)
    return list(_rows(QUICK if quick else WHOLE, quick))


def _rows(scale: Scale, quick: bool) -> Iterator[Row]:
    data = {name: keyboard.load(name) for name in sorted(keyboard.CLIENTS, key=_size)[-scale.roles :]}
    test, share = keyboard.test(), keyboard.coverage()
    pooled = _pooled(data.values())
    yield value_row("keyboard_coverage", 100 * share, "%", quick)
    yield value_row("keyboard_parameters", len(vector.flatten(vector.build(keyboard.model, 0))), "", quick)
    yield from _table("ngram", [recalls(Trigrams(pooled), test, share)], quick)
    kinds: dict[str, Callable[[int], Run]] = {
        "start": lambda seed: Run(vector.build(keyboard.model, seed)),
        "central": lambda seed: Run(central(pooled, seed, scale.steps)),
        "federated": lambda seed: federated(data, PLAIN, seed, scale.rounds),
        "federated_dp": lambda seed: federated(data, PRIVATE, seed, scale.rounds),
    }
    spent = 0.0
    for kind, learnt in kinds.items():
        found = []
        for seed in scale.seeds:
            run = learnt(seed)
            found.append(recalls(of(run.model), test, share))
            spent = max(spent, run.epsilon)
            print(f"{kind}, seed {seed}: {found[-1]}, epsilon {run.epsilon:.2f}", flush=True)
        yield from _table(kind, found, quick)
    yield value_row("keyboard_epsilon", spent, f"delta {DELTA:g}", quick)


def _table(name: str, found: list[dict[int, float]], quick: bool) -> Iterator[Row]:
    """The mean over seeds, and where there are several their standard deviation."""
    for most in found[0]:
        each = [100 * one[most] for one in found]
        yield value_row(f"keyboard_top{most}_{name}", mean(each), "%", quick)
        if len(each) > 1:
            yield value_row(f"keyboard_top{most}_{name}_deviation", stdev(each), "%", quick)


def recalls(scores: Scores, test: Dataset, coverage: float) -> dict[int, float]:
    """The share of all words that are the first that is suggested, and that are among the first three.

    ``coverage``: the share of words that are in the vocabulary; the others have no label in ``test``.
    """
    hits, count = np.zeros(4), 0
    for start in range(0, len(test), _ROWS):
        labels = test.labels[start : start + _ROWS]
        known = labels > keyboard.UNKNOWN
        found = scores(test.features[start : start + _ROWS].astype(np.int64))[known]
        found[:, : keyboard.UNKNOWN + 1] = -np.inf  # what is no word is never suggested
        best = torch.from_numpy(found).topk(3).indices.numpy()
        right = best == labels[known][:, None]
        hits[1:] += np.cumsum(right.sum(0))
        count += len(right)
    return {most: float(hits[most]) / count * coverage for most in (1, 3)}


def of(module: nn.Module) -> Scores:
    """A model's scores."""

    def scores(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.no_grad():
            found: NDArray[np.float32] = module.eval()(torch.from_numpy(rows)).numpy()
        return found

    return scores


@dataclass(frozen=True)
class Run:
    """A model; the most that a role's ledger was charged for it, at ``DELTA``: 0 without noise."""

    model: nn.Module
    epsilon: float = 0.0


def central(data: Dataset, seed: int, steps: int) -> nn.Module:
    """The model, trained in one place on all roles' rows."""
    module = vector.build(keyboard.model, seed)
    mechanism = SGD(min(1.0, _BATCH / len(data)), steps)
    vector.load(module, vector.flatten(module) + training.train(module, data, mechanism, CENTRAL))
    return module


def federated(
    data: Mapping[str, Dataset],
    recipe: Recipe,
    seed: int,
    rounds: int,
    protection: Protection = SecAgg(bound=1.0),  # noqa: B008
) -> Run:
    """A federation by the real protocol: weights as declared, or equal where whole clients are hidden.

    The bound keeps a role whose few rows make its descent go astray from moving the sum far.
    """
    hidden = recipe.level is not None
    unit: Unit = "client" if hidden else "record"
    # Reported, so that nothing is refused here.
    budget = Budget(epsilon=1e5, delta=DELTA) if hidden else None
    weights = dict(zip(keyboard.CLIENTS, keyboard.PILOT.weights, strict=True))
    server = Server(
        keyboard.model,
        protection,
        recipe.mechanism,
        recipe.optimizer,
        rounds=min(recipe.rounds, rounds),
        weights=None if hidden else {name: weights[name] for name in data},
        privacy=PrivacyTerms(recipe.level, unit=unit, disjoint=True),
        seed=seed,
        strategy=recipe.strategy,
        cohort=recipe.cohort if recipe.cohort.expected(len(data)) < len(data) else ALL,
    )
    clients = [Client(name, one, keyboard.model, budget=budget, unit=unit) for name, one in data.items()]
    for _ in track(federate(server, clients), "keyboard", min(recipe.rounds, rounds), transient=True):
        pass
    found = server.model()
    if found is None:
        raise AssertionError("this server reads the model")
    module = vector.build(keyboard.model, seed)
    vector.load(module, found)
    return Run(module, max(client.epsilon() or 0.0 for client in clients))


def _size(client: str) -> int:
    return keyboard.ROWS[keyboard.CLIENTS.index(client)]


def _pooled(data: Iterable[Dataset]) -> Dataset:
    parts = list(data)
    return Dataset(np.concatenate([one.features for one in parts]), np.concatenate([one.labels for one in parts]))
