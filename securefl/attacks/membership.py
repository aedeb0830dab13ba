"""Membership inference: from the final model, which records were trained on?

Two attacks: a record whose loss is low was in (Yeom et al., CSF 2018, section III); and LiRA, which compares the
model's confidence in a record with that of shadow models trained with and without it, by Gaussian fits (Carlini et
al., IEEE S&P 2022, algorithm 1, online, with one variance for all records, as they do for few shadows). The shadows
run the same federation, clipping and noise included, all at once.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betaincinv
from torch import nn
from torch.func import functional_call, grad, vmap

from securefl import evaluation, protection, vector
from securefl.attacks.cell import Cell, Effort, Figure, Verdict
from securefl.attacks.pictures import all_digits
from securefl.attacks.scene import Scene, one_thread
from securefl.attacks.settings import SETTINGS, Setting
from securefl.data import Dataset
from securefl.download import locate
from securefl.plan import Plan
from securefl.privacy.mechanism import DPSGD

NAME: Final = "membership inference"
SOURCE: Final = "Yeom et al., CSF 2018, section III; Carlini et al., IEEE S&P 2022, algorithm 1"
ADVERSARY: Final = "whoever is given the final model, and has records like those that it was trained on"

FALSE_POSITIVES: Final = 0.001
"""Of the records that were not in, the share that is taken for members."""

CERTAIN: Final = 10 * FALSE_POSITIVES
"""The attack succeeded where the true-positive rate is above this, by the lower end of its 95 % interval: even if one
record in ten was in, more than half of those that it names were."""

LIKELY: Final = 5 * FALSE_POSITIVES
"""Likewise, in part. With 180 members that takes four hits; who guesses has as many once in 500 cells, counting that
the threshold is drawn, too."""

TELLING: Final = 0.6
"""AUC from which it succeeded in part: members differ from others on average, if not one by one. 0.5 is a coin's; that
of 180 members and 2,160 others has a standard error of 0.02."""

_CLIENTS, _EACH, _ROUNDS, _STEPS, _PACE = 3, 30, 4, 25, 1.0  # so few records and so many steps that models overfit
_MEMBERS: Final = _CLIENTS * _EACH
_POOL: Final = 13 * _MEMBERS
_WRONG: Final = 0.3  # of the digits' labels are made up, or there is too little to remember
_BINS: Final = 10
_AT_ONCE: Final = 26  # shadows: with one gradient a record, 100 MB
_FILE: Final = "default_of_credit_card_clients.csv"
_SHA256: Final = "023eb2c3ad9efd15e7869616fa50a0143f25223105c7069ba632431530afdb61"
_ORIGIN: Final = "https://archive.ics.uci.edu/dataset/350/default+of+credit+card+clients"
_DRAWS: Final[dict[Effort, int]] = {"quick": 2, "full": 6}
_SHUFFLES: Final[dict[Effort, int]] = {"quick": 2, "full": 12}  # each record is in so many shadows, of 13 times as many
_WHY: Final = {
    "plain": "the final model remembers records",
    "secagg": "masks hide updates, not what the model remembers: it leaks what it does without them",
    "ckks-unmasked": "the server alone has no model; whoever is given it finds what it does without encryption",
    "ckks": "the server alone has no model; whoever is given it finds what it does without encryption",
    "record-dp": "noise hides most single records; on average, members may still differ after so many steps",
    "client-dp": "the sum's noise hides whole clients and their records; three clients pay for it in accuracy",
}
_REMEDY: Final = "record-level or client-level noise, more records, fewer steps; no encryption helps"

Scores = NDArray[np.float64]
"""One number a record of the pool, higher where it looks like a member."""


@dataclass(frozen=True)
class Task:
    """What is learnt. ``pool``: records of whom some were in; ``test``: others, to measure accuracy."""

    pool: Dataset
    test: Dataset
    model: Callable[[], nn.Module]


@dataclass(frozen=True)
class Outcome:
    """One attack on some targets: ``found`` of ``members`` are named at :data:`FALSE_POSITIVES`."""

    found: int
    members: int
    auc: float

    @property
    def rate(self) -> float:
        return self.found / self.members

    @property
    def at_least(self) -> float:
        """The lower end of the rate's 95 % interval (Clopper and Pearson 1934)."""
        return float(betaincinv(self.found, self.members - self.found + 1, 0.025)) if self.found else 0.0


def cells(effort: Effort) -> Iterator[Cell]:
    """One a setting, over some federations each: LiRA's rate decides, with its AUC; then losses', and accuracy."""
    task = credit_default() if effort == "full" and _credit_file() else digits()
    known: dict[tuple[float | None, bool], tuple[NDArray[np.bool_], Scores]] = {}
    for setting in SETTINGS:
        kind = setting.noise, setting.level is None
        targets = [federation(setting, task, draw) for draw in range(_DRAWS[effort])]
        if kind not in known:
            known[kind] = shadows(task, targets[0].plan, _SHUFFLES[effort])
        yield _cell(setting, task, targets, known[kind])


def verdict(lira: Outcome) -> Verdict:
    """What LiRA's outcome says."""
    if lira.at_least > CERTAIN:
        return "red"
    return "amber" if lira.at_least > LIKELY or lira.auc >= TELLING else "green"


def digits() -> Task:
    """The embedded digits, three in ten of the pool with a label at random: hard to predict, so there to remember."""
    whole, random = all_digits(), np.random.RandomState(0)
    wrong = random.random_sample(_POOL) < _WRONG
    labels = np.where(wrong, random.randint(0, 10, _POOL), whole.labels[:_POOL])
    pool, test = Dataset(whole.features[:_POOL], labels), Dataset(whole.features[_POOL:], whole.labels[_POOL:])
    return Task(pool, test, partial(_model, whole.features[0].size, 10))


def credit_default() -> Task:
    """Some of Taiwan's credit card clients of 2005 (Yeh and Lien 2009), each feature as one of ten tenths."""
    content = locate("credit_default", _FILE, _SHA256, _ORIGIN).read_text(encoding="utf-8")
    table = np.array(list(csv.reader(content.splitlines()))[1:], dtype=np.float64)
    table = table[np.random.RandomState(0).permutation(len(table))[: 2 * _POOL]]
    cuts = [np.quantile(column, np.arange(1, _BINS) / _BINS) for column in table[:, 1:-1].T]
    tenths = [np.searchsorted(at, column) for at, column in zip(cuts, table[:, 1:-1].T, strict=True)]
    features = np.concatenate([np.eye(_BINS, dtype=np.float32)[each] for each in tenths], axis=1)
    labels = table[:, -1].astype(np.int64)
    pool, test = Dataset(features[:_POOL], labels[:_POOL]), Dataset(features[_POOL:], labels[_POOL:])
    return Task(pool, test, partial(_model, features.shape[1], 2))


def federation(setting: Setting, task: Task, draw: int) -> Scene:
    """A target: the real protocol, all rounds. Which records are in depends on ``draw`` only."""
    rows = _members(draw).reshape(_CLIENTS, _EACH)
    data = {f"client-{i}": Dataset(task.pool.features[own], task.pool.labels[own]) for i, own in enumerate(rows)}
    scene = Scene(setting, task.model, data, mechanism=setting.mechanism(_STEPS), learning_rate=_PACE, rounds=_ROUNDS)
    for _ in range(_ROUNDS):
        scene.round()
    return scene


def shadows(task: Task, plan: Plan, shuffles: int) -> tuple[NDArray[np.bool_], Scores]:
    """Which records are in which shadow, and each shadow's confidence in each: both of shape (shadows, pool).

    Every shuffle of the pool is dealt out to shadows, so that each record is in one of them.
    """
    random = np.random.RandomState(1)
    rows = np.concatenate([random.permutation(_POOL) for _ in range(shuffles)]).reshape(-1, _CLIENTS, _EACH)
    inside = np.zeros((len(rows), _POOL), dtype=np.bool_)
    np.put_along_axis(inside, rows.reshape(len(rows), -1), True, axis=1)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(2)
        return inside, _confidence(task, _trained(task, plan, rows))


def likelihood_ratios(target: Scores, inside: NDArray[np.bool_], known: Scores) -> Scores:
    """LiRA's score of each record: log-likelihood of the target's confidence if it was in, less that if it was not.

    Each record is in two shadows at least, and out of as many: of one, nobody knows how it varies.
    """
    fits = []
    for where in (inside, ~inside):
        means = (known * where).sum(axis=0) / where.sum(axis=0)
        fits.append((means, float(np.square(known - means)[where].sum() / (where.sum() - len(means)))))
    (mean_in, var_in), (mean_out, var_out) = fits
    found: Scores = np.square(target - mean_out) / (2 * var_out) - np.square(target - mean_in) / (2 * var_in)
    return found


def outcome(scores: list[tuple[Scores, Scores]]) -> Outcome:
    """From the scores of members and of others, one pair a target."""
    found, areas = 0, []
    for members, others in scores:
        order = np.sort(others)
        found += int((members > order[len(order) - 1 - int(FALSE_POSITIVES * len(order))]).sum())
        ranks = np.searchsorted(order, members, "left") + np.searchsorted(order, members, "right")
        areas.append(ranks.mean() / (2 * len(order)))
    return Outcome(found, sum(len(members) for members, _ in scores), float(np.mean(areas)))


def _cell(setting: Setting, task: Task, targets: list[Scene], known: tuple[NDArray[np.bool_], Scores]) -> Cell:
    by_ratio, by_loss, right = [], [], []
    for draw, scene in enumerate(targets):
        final = scene.model_of("client-0")
        if final is None:
            raise AssertionError("every client holds the model, or the server does")
        confidence = _confidence(task, torch.from_numpy(np.array(final))[None])[0]
        among = np.isin(np.arange(_POOL), _members(draw))
        ratios = likelihood_ratios(confidence, *known)
        by_ratio.append((ratios[among], ratios[~among]))
        by_loss.append((confidence[among], confidence[~among]))  # a loss falls as confidence grows
        right.append(evaluation.accuracy(scene.module(final), task.test))
    lira, loss = outcome(by_ratio), outcome(by_loss)
    found = verdict(lira)
    figures = (
        Figure("true positives at 0.1 % false positives", lira.rate, "share"),
        Figure("at least, at 95 %", lira.at_least, "share"),
        Figure("AUC", lira.auc),
        Figure("true positives by loss alone", loss.rate, "share"),
        Figure("AUC by loss alone", loss.auc),
        Figure("members", lira.members),
        Figure("accuracy", float(np.mean(right)), "share"),
    )
    return Cell(NAME, setting.name, found, figures, _WHY[setting.name], "" if found == "green" else _REMEDY)


def _trained(task: Task, plan: Plan, rows: NDArray[np.int64]) -> torch.Tensor:
    """The final models of federations on these rows of the pool, (shadows, clients, each): one flat model a row."""
    module = vector.build(task.model, plan.model_seed)
    features, labels = torch.from_numpy(task.pool.features)[rows], torch.from_numpy(task.pool.labels)[rows]
    loss = partial(_loss, module)
    step = partial(_noised, loss, plan.mechanism) if isinstance(plan.mechanism, DPSGD) else grad(loss)
    each = vmap(vmap(step, randomness="different"), randomness="different", chunk_size=_AT_ONCE)
    models = torch.from_numpy(vector.flatten(module)).expand(len(rows), -1)
    for _ in range(plan.rounds):
        local = models[:, None].expand(-1, _CLIENTS, -1)
        for _ in range(plan.mechanism.steps):
            local = local - plan.optimizer.learning_rate * each(local, features, labels)
        models = models + _mean(plan, local - models[:, None])
    return models


def _mean(plan: Plan, updates: torch.Tensor) -> torch.Tensor:
    """What a round moves each shadow's model by, client-level clipping and noise included."""
    level = plan.privacy.client_level
    if level is None:
        return updates.mean(dim=1)
    cut = updates * (level.clip / updates.norm(dim=2, keepdim=True)).clamp(max=1)
    noise = level.clip * protection.ring_noise(plan) * torch.randn_like(updates[:, 0])
    mean: torch.Tensor = (cut.sum(dim=1) + noise) / _CLIENTS
    return mean


def _noised(
    loss: Callable[..., torch.Tensor],
    mechanism: DPSGD,
    flat: torch.Tensor,
    features: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """A step's noised mean of clipped gradients (Abadi et al., CCS 2016, algorithm 1)."""
    own = vmap(grad(loss), in_dims=(None, 0, 0))(flat, features[:, None], labels[:, None])
    weights = (mechanism.clip / own.norm(dim=1)).clamp(max=1)
    noise = mechanism.noise_multiplier * mechanism.clip * torch.randn_like(flat)
    noised: torch.Tensor = (weights @ own + noise) / len(labels)
    return noised


def _loss(module: nn.Module, flat: torch.Tensor, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = nn.functional.cross_entropy(_outputs(module, flat, features), labels)
    return found


def _outputs(module: nn.Module, flat: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    named = list(module.named_parameters())
    parts = torch.split(flat, [parameter.numel() for _, parameter in named])
    own = {name: part.view_as(parameter) for part, (name, parameter) in zip(parts, named, strict=True)}
    found: torch.Tensor = functional_call(module, own, (features,))
    return found


def _confidence(task: Task, models: torch.Tensor) -> Scores:
    """The logit of each label's probability, which is nearly normal (Carlini et al., section V-B): (models, pool)."""
    module, features = vector.build(task.model, 0), torch.from_numpy(task.pool.features)
    labels = torch.from_numpy(task.pool.labels)[:, None]
    found = []
    with torch.no_grad():
        for flat in models:
            outputs = _outputs(module, flat, features).double()
            others = outputs.scatter(1, labels, -torch.inf).logsumexp(dim=1)
            found.append(outputs.gather(1, labels)[:, 0] - others)
    return torch.stack(found).numpy()


def _members(draw: int) -> NDArray[np.int64]:
    """Rows of the pool that are trained on."""
    return np.random.RandomState(100 + draw).permutation(_POOL)[:_MEMBERS]


def _credit_file() -> bool:
    return (Path(os.environ.get("SECUREFL_DATA", "")) / "credit_default" / _FILE).is_file()


def _model(inputs: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, classes))
