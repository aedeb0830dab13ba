"""A report's values in words and rounded figures, the same in every rendering."""

from __future__ import annotations

import math
from typing import Final

from securefl import measures
from securefl.privacy.mechanism import DPSGD, Budget, Mechanism, NoisedSum, Skellam, Unit
from securefl.report.document import Audience, Report
from securefl.report.statement import Absent, Unknown

AUDIENCES: Final[dict[Audience, str]] = {
    "server": "the server",
    "peer": "another client",
    "colluders": "colluders with the server",
    "holder": "a holder of the final model",
}
UNITS: Final[dict[Unit | Unknown, str]] = {
    "record": "one record of one client",
    "patient": "one patient of one client, who by the owner's word has one record",
    "client": "everything that one client has",
    "unknown": "unknown",
}
NEIGHBOURS: Final[dict[str, str]] = {
    "add-or-remove-one": "data sets that differ by one record, added or removed",
    "zero-out": "the same clients, one of whose contributions is replaced by zeros",
}
_SKELLAM: Final = {
    "update": "Skellam sum of updates",
    "clipped": "Skellam count for the clip",
    "survey": "Skellam counts of the survey",
}
PROVES: Final = (
    "The figures follow from the charges that clients signed, by two accountants.",
    "Each statement is by the holder of the key beside it, and was not changed since.",
    "A ledger that was set back behind a head that others have seen does not match.",
)
CANNOT_PROVE: Final = (
    "that a site sampled, clipped and noised as its charges say",
    "that a site charged everything that it released, to this project or to others",
    "that the records are what their owner says they are, or that no person is at two clients",
)


def size(count: float) -> str:
    """Bytes for people: ``12.4 kB``."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def number(value: float | str, digits: int = 3) -> str:
    """A rounded number; words as they are."""
    return value if isinstance(value, str) else f"{value:.{digits}f}"


def short(value: float | str) -> str:
    """A number as a person would write it; words as they are."""
    return value if isinstance(value, str) else f"{value:g}"


def belief(prior: float, epsilon: float) -> float:
    """The most that a belief of ``prior`` that a unit is in the data can become: Bayes' rule, odds times e^epsilon.

    Holds under epsilon-differential privacy; with a delta, but for about that probability.
    """
    return 1 / (1 + (1 / prior - 1) * math.exp(-epsilon))


def kind(released: Mechanism) -> str:
    """What was released, in two words."""
    match released:
        case DPSGD():
            return "DP-SGD"
        case NoisedSum():
            return f"noised {released.released}"
        case Skellam():
            return _SKELLAM[released.released]
        case _:
            return "SGD"


def mechanism(released: Mechanism) -> str:
    """What was released, how it was noised, and who says how that is done."""
    match released:
        case DPSGD():
            return (
                f"DP-SGD (Abadi et al., 2016): gradients of single records clipped to L2 norm {released.clip:g}, "
                f"Gaussian noise of {released.noise_multiplier:g} times that on their sum; {_steps(released.steps)} a "
                f"round, sampling rate {released.sampling_rate:g}"
            )
        case NoisedSum():
            return (
                f"Gaussian noise on one sum of {released.released} (Dwork and Roth, 2014): each record's part at most "
                f"{released.bound:.3g} long, noise of {released.noise_multiplier:g} times that"
            )
        case Skellam():
            return _counts(released) if released.released == "survey" else _skellam(released)
        case _:
            return (
                f"Local training by SGD, which clips no record and adds no noise; {_steps(released.steps)} a round, "
                f"sampling rate {released.sampling_rate:g}"
            )


def metrics(report: Report) -> str:
    """The model's figures beside accuracy."""
    return measures.told(report.utility.metrics, report.utility.unit)


def budget(report: Report) -> str:
    """What the owners allow, if all allow the same."""
    found = {_allowed(owner.budget) for owner in report.owners}
    return found.pop() if len(found) == 1 else "different budgets"


def _allowed(budget: Budget | Absent) -> str:
    return budget if isinstance(budget, str) else f"{budget.epsilon:g}, at delta {budget.delta:g}"


def _skellam(released: Skellam) -> str:
    what = "updates" if released.released == "update" else "counts that the clip follows"
    return (
        f"Distributed Skellam noise on the sum of the clients' {what} (Agarwal et al., 2021): {released.dimension:,} "
        f"coordinates, cut off at L2 norm 1 (in clips), in steps of {1 / released.scale:.2g}; noise of "
        f"{released.noise_multiplier:g} clips from {released.honest} contributors together"
    )


def _counts(released: Skellam) -> str:
    return (
        f"Distributed Skellam noise on {released.dimension:,} counts of clients by accuracy (Agarwal et al., 2021): "
        f"noise of {released.noise_multiplier:g} times a client's part, from {released.honest} contributors together"
    )


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"
