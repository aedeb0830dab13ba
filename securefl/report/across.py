"""What a survey's noised counts say of the clients, and how sure that is: in rows and words, for the page.

Of a count the noise is known, and that all counts of a model together are the clients. So their excess is noise, and is
taken off all classes alike; what is then added up to any boundary errs by s sqrt(j (b - j) / b), for j of b classes and
a deviation of s a count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import NormalDist
from typing import Final

from securefl.privacy.mechanism import NoisedSum, Release, Skellam
from securefl.report import words
from securefl.report.document import Report
from securefl.report.surveyed import Spread, Surveyed

MODELS: Final[Mapping[str, str]] = {
    "federated": "the federated model",
    "local": "one trained alone",
    "personalised": "tuned at the client",
}
SURE: Final = 3
"""Deviations of the noise beyond which a class is said to have clients."""

_WRONG: Final = 0.05  # of surveys, at most, in each range and each least number


@dataclass(frozen=True)
class Row:
    """One model at the clients: ``mean``, with one deviation of its noise; the worst class that stands out of it; and
    each quartile, with between which accuracies it lies.
    """

    model: str
    mean: str
    worst: str
    quartiles: Sequence[str]


@dataclass(frozen=True)
class Gain:
    """Clients that are better off, and worse off, by a class or more with one model than with another, at the least."""

    change: str
    better: int
    worse: int


@dataclass(frozen=True)
class Across:
    """The section. ``drowned``: not even all clients in one class would stand out of the noise. ``width``: of a class,
    in accuracy. ``charged``: what was charged for it, in words.
    """

    found: Surveyed
    rows: Sequence[Row]
    gains: Sequence[Gain]
    drowned: bool
    width: float
    charged: Sequence[str]


def of(report: Report) -> Across | None:
    """What to show of a report's survey; None where it has none, or nobody told what it found."""
    found = report.utility.survey
    if isinstance(found, str):
        return None
    return Across(
        found=found,
        rows=[_row(name, spread, found) for name, spread in spreads(found).items()],
        gains=[
            _gain("federated instead of alone", found.federated, found.local, found),
            _gain("tuned instead of federated", found.personalised, found.federated, found),
        ],
        drowned=SURE * found.deviation >= found.clients,
        width=1 / len(found.federated.counts),
        charged=_charged(report),
    )


def spreads(found: Surveyed) -> Mapping[str, Spread]:
    """The three, by the names of ``MODELS``."""
    return {"federated": found.federated, "local": found.local, "personalised": found.personalised}


def mean_error(found: Surveyed) -> float:
    """Standard deviation of a mean accuracy, by the noise: classes err alone, but for their common excess."""
    bins = len(found.federated.counts)
    return found.deviation * math.sqrt(sum(((j + 0.5) / bins - 0.5) ** 2 for j in range(bins))) / found.clients


def quartile(spread: Spread, found: Surveyed, share: float) -> tuple[float, float]:
    """Between which accuracies the one lies that ``share`` of the clients do not exceed; in 19 of 20 surveys."""
    bins, wanted = len(spread.counts), share * found.clients
    below, errors, likely = _below(spread, found), _errors(found), _likely(bins)
    low = max(j for j in range(bins) if j == 0 or below[j] + likely * errors[j] < wanted)
    high = min(j for j in range(1, bins + 1) if j == bins or below[j] - likely * errors[j] >= wanted)
    return min(low, high - 1) / bins, max(high, low + 1) / bins


def at_least(better: Spread, worse: Spread, found: Surveyed) -> int:
    """How many clients are in a higher class with one model than with the other, at the very least; in 19 of 20 surveys
    or more.

    Counts do not tell which client is in which class. But where so many fewer are below some boundary, so many have
    crossed it.
    """
    # Below the outermost boundaries are nobody and everybody: they tell nothing.
    sure = max(SURE, _likely(len(better.counts)))
    crossed = (
        worse_below - better_below - sure * math.sqrt(2) * error
        for worse_below, better_below, error in zip(
            _below(worse, found)[1:-1], _below(better, found)[1:-1], _errors(found)[1:-1], strict=True
        )
    )
    return min(max(0, math.ceil(max(crossed))), found.clients)


def _below(spread: Spread, found: Surveyed) -> Sequence[float]:
    """Clients below each boundary between classes, from 0 to all of them."""
    excess = (sum(spread.counts) - found.clients) / len(spread.counts)
    return list(accumulate((count - excess for count in spread.counts), initial=0.0))


def _likely(bins: int) -> float:
    """Deviations that the noise keeps within at all boundaries between so many classes, in 19 of 20 surveys or more: a
    union bound, of a law close to the normal.
    """
    return NormalDist().inv_cdf(1 - _WRONG / 2 / max(1, bins - 1))


def _errors(found: Surveyed) -> Sequence[float]:
    bins = len(found.federated.counts)
    return [found.deviation * math.sqrt(j * (bins - j) / bins) for j in range(bins + 1)]


def in_a_line(report: Report) -> str:
    """The same for where there is no room; empty where there is no survey."""
    shown = of(report)
    if shown is None:
        return ""
    if shown.drowned:
        return f"a survey of {shown.found.clients} clients, of which the noise leaves nothing to be read"
    told = "; ".join(f"{row.model} {row.mean}, median {row.quartiles[1]}" for row in shown.rows)
    return f"accuracy at {shown.found.clients} clients, from noised counts: {told}"


def _row(model: str, spread: Spread, found: Surveyed) -> Row:
    return Row(
        model=MODELS[model],
        mean=f"{spread.mean:.2f} ± {mean_error(found):.2f}",
        worst=f"{spread.worst:.2f}" if max(spread.counts) > max(SURE * found.deviation, 0.5) else "not clear",
        quartiles=[
            f"{value:.2f} ({min(low, value):.2g} to {max(high, value):.2g})"
            for value, (low, high) in zip(
                spread.quartiles, (quartile(spread, found, share) for share in (0.25, 0.5, 0.75)), strict=True
            )
        ],
    )


def _gain(change: str, better: Spread, worse: Spread, found: Surveyed) -> Gain:
    return Gain(change, at_least(better, worse, found), at_least(worse, better, found))


def _charged(report: Report) -> Sequence[str]:
    """What clients charged for the survey, each sort once."""
    released = [one.release for owner in report.owners if not isinstance(owner.released, str) for one in owner.released]
    return tuple(dict.fromkeys(words.mechanism(one) for one in released if _asked(one)))


def _asked(release: Release) -> bool:
    return isinstance(release, Skellam | NoisedSum) and release.released in ("survey", "scores")
