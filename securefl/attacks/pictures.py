"""Pictures to steal, and how near a stolen one is: PSNR, SSIM, and whether it names its original among many.

Digits of 8 by 8 pixels, values 0 to 1, as scikit-learn embeds them: half are the clients', half are public.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl.attacks.cell import Picture
from securefl.data import Dataset

Pixels = NDArray[np.float64]
"""Pictures, one a row: shape (n, pixels)."""

SIDE: Final = 8
"""Pixels on each side of a digit."""

NAMED: Final = 18.0
"""PSNR in dB from which a guess can be a copy, as Fowl et al. (ICLR 2022) count. Every third digit has another one that
near, so it must be the nearest, too."""

_LUMINANCE, _CONTRAST = 0.01**2, 0.03**2  # the constants of Wang et al. 2004, section III-B, for values up to 1


def private_digits() -> Dataset:
    """What the clients hold: features of shape (n, 1, 8, 8)."""
    return _half(0)


def public_digits() -> Dataset:
    """Other digits of the same kind: what the adversary knows before it attacks."""
    return _half(1)


def all_digits() -> Dataset:
    """Both together, in an order that is always the same."""
    return Dataset(*_digits())


def pixels(data: Dataset) -> Pixels:
    """A data set's pictures."""
    rows: Pixels = data.features.reshape(len(data), -1).astype(np.float64)
    return rows


def mean_picture() -> Pixels:
    """The guess of who saw nothing, shape (1, pixels): the mean of the public digits."""
    mean: Pixels = pixels(public_digits()).mean(axis=0, keepdims=True)
    return mean


def shown(guess: NDArray[np.floating]) -> Pixels:
    """A guess cut off at the values that a pixel can have; what is not finite is grey."""
    return np.clip(np.nan_to_num(guess.astype(np.float64), nan=0.5), 0.0, 1.0)


def psnr(original: Pixels, guess: Pixels) -> Pixels:
    """Peak signal-to-noise ratio in dB, along the last axis, for values up to 1; at most 200."""
    found: Pixels = -10 * np.log10(np.maximum(np.mean((original - guess) ** 2, axis=-1), 1e-20))
    return found


def ssim(original: Pixels, guess: Pixels) -> float:
    """Structural similarity of two digits, -1 to 1 (Wang et al. 2004, equation 13), over the one window of 8 by 8."""
    means = original.mean() * guess.mean(), original.mean() ** 2 + guess.mean() ** 2
    covariance = float(np.mean((original - original.mean()) * (guess - guess.mean())))
    alike = (2 * means[0] + _LUMINANCE) * (2 * covariance + _CONTRAST)
    return float(alike / ((means[1] + _LUMINANCE) * (original.var() + guess.var() + _CONTRAST)))


def nearest(originals: Pixels, guesses: Pixels) -> Pixels:
    """For each original the guess that is nearest to it, which the adversary cannot know: its luckiest choice."""
    found: Pixels = guesses[_distances(originals, guesses).argmin(axis=1)]
    return found


def identified(originals: Pixels, guesses: Pixels) -> NDArray[np.bool_]:
    """Which originals are named by their nearest guess: a copy, nearer to them than to any other or public picture."""
    best = nearest(originals, guesses)
    gallery = np.concatenate([originals, pixels(public_digits())])
    named: NDArray[np.bool_] = _distances(best, gallery).argmin(axis=1) == np.arange(len(originals))
    return named & (psnr(originals, best) >= NAMED)


def pair(original: Pixels, guess: Pixels) -> tuple[Picture, Picture]:
    """One picture and what became of it, side by side."""
    return _picture("original", original), _picture("reconstructed", guess)


def _picture(caption: str, values: Pixels) -> Picture:
    rows = np.round(values.reshape(SIDE, -1), 3)
    return Picture(caption, tuple(tuple(float(value) for value in row) for row in rows))


def _distances(left: Pixels, right: Pixels) -> Pixels:
    """Squared Euclidean distances: shape (rows of ``left``, rows of ``right``)."""
    found: Pixels = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2 * left @ right.T
    return found


def _half(which: int) -> Dataset:
    features, labels = _digits()
    return Dataset(features[which::2], labels[which::2])


@cache
def _digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    raw, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(labels))
    return (raw[order] / 16).reshape(-1, 1, SIDE, SIDE).astype(np.float32), labels[order].astype(np.int64)
