"""Gradient matching: made-up records are moved until their gradient is the one that was seen.

Two ways: "deep leakage" moves records and labels until gradients are equal (Zhu et al., NeurIPS 2019, algorithm 1);
"inverting gradients" reads the labels off the last bias and moves records until gradients point the same way and the
pictures are smooth (Geiping et al., NeurIPS 2020, equation 4). Here every client trains one step on one record, with a
small smooth model. Where uploads are masked, the adversary matches the mean of all updates, as one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

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
    ssim,
)
from securefl.attacks.scene import Scene, Vector, View, one_thread
from securefl.attacks.settings import SETTINGS, Setting
from securefl.data import Dataset

NAME: Final = "gradient matching"
SOURCE: Final = "Zhu et al., NeurIPS 2019; Geiping et al., NeurIPS 2020"
ADVERSARY: Final = "a server that follows the protocol and reads what it is sent"

MOST: Final = 0.5
"""Share of identified records from which the attack succeeded: a record is more likely than not to be found."""

FEW: Final = 0.05
"""Share below which it failed. A guess that saw nothing identifies none of hundreds of pictures."""

_SMALL: Final = 5  # clients
_LARGE: Final = 20
_CLASSES: Final = 10
_SMOOTHNESS: Final = 1e-3  # weight of the total variation, of the order that Geiping et al. use
_PACE: Final = 0.1  # Adam's learning rate for pixels, as theirs
_WHY: Final = {
    "plain": "the server reads each client's update, and one record has that gradient",
    "secagg": "the sum of few updates is the gradient of a small batch: the records are found, not whose they are",
    "ckks-unmasked": "the server alone reads neither updates nor their sum; "
    "with any one client's key it would read what it reads without protection",
    "ckks": "the server alone reads neither updates nor their sum; with a client's key it would read the sum, as in "
    "the column of masks",
    "record-dp": "the server reads each update, and its noise is larger than the record's clipped gradient",
    "client-dp": "the sum's noise is larger than what any record adds to it",
}
_REMEDY: Final = "noise; or a minimum of more clients with more records each: sums of many records stay blended"


@dataclass(frozen=True)
class Seen:
    """Records that one gradient is of, and the guesses at them, each one row a picture."""

    originals: Pixels
    by_equality: Pixels
    by_direction: Pixels

    @property
    def guesses(self) -> Pixels:
        return np.concatenate([self.by_equality, self.by_direction])


def cells(effort: Effort) -> Iterator[Cell]:
    """One a setting. "identified" counts a record that either way finds; the full effort adds a larger cohort."""
    for setting in SETTINGS:
        seen = attacked(setting, _SMALL, effort)
        figures = _figures(seen)
        if effort == "full":
            large = _share(attacked(setting, _LARGE, effort))
            figures = (*figures, Figure(f"identified, {_LARGE} clients", large, "share"))
        found = verdict(figures[0].value)
        originals, guesses = seen[0].originals, nearest(seen[0].originals, seen[0].guesses)
        remedy = "" if found == "green" else _REMEDY
        pictures = pair(originals[0], guesses[0])
        yield Cell(NAME, setting.name, found, figures, _WHY[setting.name], remedy, pictures)


def verdict(share: float) -> Verdict:
    """What a share of identified records says."""
    if share >= MOST:
        return "red"
    return "green" if share < FEW else "amber"


def attacked(setting: Setting, clients: int, effort: Effort) -> list[Seen]:
    """One round of so many clients with a record each, and what the adversary finds in each gradient that it has.

    Where it has one of each client, the quick effort is spent on two of them.
    """
    records = private_digits()
    names = [f"client-{row:03d}" for row in range(clients)]
    data = {
        name: Dataset(records.features[row : row + 1], records.labels[row : row + 1]) for row, name in enumerate(names)
    }
    scene = Scene(setting, _model, data, mechanism=setting.mechanism(), learning_rate=1.0)
    view, originals = scene.round(), pixels(records)[:clients]
    if view.mean_update is None:
        guess = mean_picture()
        return [Seen(originals, guess, guess)]
    if setting.protection.masked:
        return [_seen(scene, view, view.mean_update, originals, effort)]
    victims = names[: 2 if effort == "quick" else _SMALL]
    updates = {row: view.update_of(name) for row, name in enumerate(victims)}
    return [
        _seen(scene, view, update, originals[row : row + 1], effort)
        for row, update in updates.items()
        if update is not None
    ]


def deep_leakage(module: nn.Module, gradient: torch.Tensor, count: int, steps: int) -> Pixels:
    """``count`` pictures whose mean gradient, with labels that move too, equals the flat ``gradient``."""
    random = torch.Generator().manual_seed(1)
    guess = torch.rand((count, 1, SIDE, SIDE), generator=random).requires_grad_()
    scores = torch.randn((count, _CLASSES), generator=random).requires_grad_()
    # Its defaults would stop far from equality, which is reached to float32's last digits.
    descent = torch.optim.LBFGS(
        [guess, scores],
        max_iter=steps,
        history_size=50,
        tolerance_grad=1e-14,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def distance() -> torch.Tensor:
        descent.zero_grad()
        found = (_gradient(module, guess, scores.softmax(dim=1)) - gradient).square().sum()
        torch.autograd.backward(found, inputs=[guess, scores])
        return found.detach()

    descent.step(distance)  # type: ignore[no-untyped-call]
    return _rows(guess)


def inverting_gradients(module: nn.Module, gradient: torch.Tensor, count: int, steps: int) -> Pixels:
    """``count`` smooth pictures whose mean gradient has the direction of the flat ``gradient``."""
    random = torch.Generator().manual_seed(2)
    guess = torch.rand((count, 1, SIDE, SIDE), generator=random).requires_grad_()
    labels = nn.functional.one_hot(_labels(module, gradient, count), _CLASSES).float()
    descent = torch.optim.Adam([guess], lr=_PACE)
    slower = torch.optim.lr_scheduler.MultiStepLR(descent, [steps * part // 8 for part in (3, 5, 7)])
    for _ in range(steps):
        descent.zero_grad()
        alike = nn.functional.cosine_similarity(_gradient(module, guess, labels), gradient, dim=0)
        torch.autograd.backward(1 - alike + _SMOOTHNESS * _variation(guess), inputs=[guess])
        if guess.grad is not None:
            guess.grad.sign_()  # as the source does: pixels are moved alike
        descent.step()
        slower.step()
        with torch.no_grad():
            guess.clamp_(0, 1)
    return _rows(guess)


def _seen(scene: Scene, view: View, update: Vector, originals: Pixels, effort: Effort) -> Seen:
    module = scene.module(view.before)
    gradient = torch.from_numpy(-update).float()  # one step at a learning rate of 1
    steps = 100 if effort == "quick" else 300
    with one_thread():
        return Seen(
            originals,
            deep_leakage(module, gradient, len(originals), steps),
            inverting_gradients(module, gradient, len(originals), 2 * steps),
        )


def _figures(seen: list[Seen]) -> tuple[Figure, ...]:
    pairs = [(one.originals, nearest(one.originals, one.guesses)) for one in seen]
    each = [ssim(row, guess) for originals, guesses in pairs for row, guess in zip(originals, guesses, strict=True)]
    return (
        Figure("identified", _share(seen), "share"),
        Figure("by deep leakage", _mean([identified(one.originals, one.by_equality) for one in seen]), "share"),
        Figure("by inverting gradients", _mean([identified(one.originals, one.by_direction) for one in seen]), "share"),
        Figure("PSNR", _mean([psnr(*one) for one in pairs]), "dB"),
        Figure("PSNR of the mean picture", _mean([psnr(one.originals, mean_picture()) for one in seen]), "dB"),
        Figure("SSIM", float(np.mean(each))),
    )


def _share(seen: list[Seen]) -> float:
    return _mean([identified(one.originals, one.guesses) for one in seen])


def _mean(parts: Sequence[NDArray[np.float64] | NDArray[np.bool_]]) -> float:
    return float(np.concatenate(parts).mean())


def _gradient(module: nn.Module, pictures: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of the mean cross-entropy, flat, and itself ready to be differentiated."""
    loss = nn.functional.cross_entropy(module(pictures), labels)
    parts = torch.autograd.grad(loss, list(module.parameters()), create_graph=True)
    return torch.cat([part.reshape(-1) for part in parts])


def _labels(module: nn.Module, gradient: torch.Tensor, count: int) -> torch.Tensor:
    """The batch's labels: the last bias's gradient is mean probability less share of the class, and the probabilities
    of a model that learnt nothing yet are nearly those of any picture (Zhao et al. 2020, for one record).
    """
    with torch.no_grad():
        expected = module(torch.from_numpy(public_digits().features)).softmax(dim=1).mean(dim=0)
    shares, found = (expected - gradient[-_CLASSES:]) * count, []
    for _ in range(count):
        found.append(int(shares.argmax()))
        shares[found[-1]] -= 1
    return torch.tensor(found)


def _variation(pictures: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of neighbouring pixels (total variation)."""
    across, down = pictures.diff(dim=3), pictures.diff(dim=2)
    return across.abs().mean() + down.abs().mean()


def _rows(guess: torch.Tensor) -> Pixels:
    return shown(guess.detach().reshape(len(guess), -1).numpy())


def _model() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.Tanh()),
        *(nn.Flatten(), nn.Linear(8 * (SIDE // 2) ** 2, _CLASSES)),
    )
