"""Scores as they come in, checked; and what a fixed number of guesses about them gets right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from securefl.errors import BadInput

# Squares of larger ones overflow.
_MOST = 1e100

Scores = NDArray[np.float64]
Included = NDArray[np.bool_]


class Guesses(NamedTuple):
    """How many canaries are guessed: the ``highest`` scores were in, the ``lowest`` out; nothing is said of the rest.

    To be fixed before scores are seen.
    """

    highest: int
    lowest: int


def a_fifth(canaries: int) -> tuple[Guesses]:
    """A fifth of all canaries, half of them on each side: near the best choice for epsilons from 4 to 20."""
    side = max(1, canaries // 10)
    return (Guesses(side, min(side, canaries - side)),)


def checked(scores: ArrayLike, what: str, axes: int = 1) -> Scores:
    """``scores`` as an array of ``axes`` axes. Raises ``BadInput`` on another shape, NaN, or numbers above 1e100."""
    try:
        found = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{what} are not numbers: {error}") from error
    if found.ndim != axes:
        raise BadInput(f"{what} have the shape {found.shape}: they must have {axes} axes, the first one for canaries")
    if not (np.abs(found) <= _MOST).all():
        raise BadInput(f"{what} hold NaN, infinity or more than {_MOST:g}: score every canary with a finite number")
    return found


def checked_coins(included: ArrayLike, canaries: int) -> Included:
    """Whether each canary was in, as booleans. Raises ``BadInput`` if these are not ``canaries`` booleans."""
    found = np.asarray(included)
    if found.dtype != np.bool_ and found.size:
        raise BadInput(f"included is of {found.dtype}: say True or False for each canary")
    if found.shape != (canaries,):
        raise BadInput(f"included has the shape {found.shape}: there are {canaries} scores, one for each canary")
    return found.astype(np.bool_)


def checked_guesses(guesses: Sequence[Guesses], canaries: int) -> Sequence[Guesses]:
    """``guesses``, if each can be made of so many canaries. Raises ``BadInput`` otherwise."""
    if not guesses:
        raise BadInput("no guesses are to be made: give the numbers of highest and lowest scores to guess")
    for one in guesses:
        if min(one) < 0 or not 1 <= sum(one) <= canaries:
            raise BadInput(f"{one} cannot be made of {canaries} canaries: guess at least one, and each only once")
    return guesses


def correct(scores: Scores, included: Included, guesses: Guesses) -> int:
    """How many guesses are right. A guess that would have to choose among equal scores counts as wrong.

    That is no more than what any choice among them gets right, so that the order of canaries does not matter.
    """
    ranked = np.concatenate(([-np.inf], np.sort(scores), [np.inf]))
    below_highest, above_lowest = ranked[len(scores) - guesses.highest], ranked[guesses.lowest + 1]
    return int(np.sum(included & (scores > below_highest)) + np.sum(~included & (scores < above_lowest)))
