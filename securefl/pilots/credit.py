"""Default on credit cards in Taiwan, 2005: banks that would score card holders together. The metric is the AUC.

30,000 card holders; what is predicted is whether the next month's payment is missed. Two splits of the same people:
``credit``, by education, and ``credit-age``, by age band. Test rows, every fifth in published order, are declared
public. Logistic regression, starting from zero.

Sex, marital status, age and education are not features: law forbids the first three in lending in many places (in the
United States the Equal Credit Opportunity Act, 15 USC 1691), and education stands for which bank it is.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from securefl.data import Dataset
from securefl.download import locate
from securefl.errors import BadInput
from securefl.pilots import Pilot, Recipe
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD, SGD, Budget
from securefl.report.hazards import Hazard, hazard

if TYPE_CHECKING:
    from torch import nn

_FOLDER, _FILE = "credit_default", "default_of_credit_card_clients.csv"
_URL = "https://archive.ics.uci.edu/static/public/350/data.csv"
# Of the table's numbers: how they are written differs from copy to copy.
_SHA256 = "7d0c12ad5a87c1ba4b09d18a85664be31614e173fe5fb6feca9bfb568e3f6749"

# Columns of the file, as UCI numbers them (X1 is column 1; column 0 is the ID).
_LIMIT, _EDUCATION, _AGE, _LABEL = 1, 3, 5, 24
_STATUS, _BILLS, _PAYMENTS = slice(6, 12), slice(12, 18), slice(18, 24)

# Banks by X3: 1 graduate school, 2 university, 3 high school; 4 others, and codes that UCI does not explain (0, 5, 6).
_BY_EDUCATION: Final[Mapping[str, tuple[int, ...]]] = {
    "graduate-school": (1,),
    "university": (2,),
    "high-school": (3,),
    "other": (0, 4, 5, 6),
}
# Banks by X5, years: the decades of a life, the last one open.
_BY_AGE: Final[Mapping[str, range]] = {
    "twenties": range(30),
    "thirties": range(30, 40),
    "forties": range(40, 50),
    "fifty-and-over": range(50, 200),
}
# Declared training rows; a test compares them with the split.
ROWS: Final[Mapping[str, int]] = {
    "graduate-school": 8_452,
    "university": 11_241,
    "high-school": 3_923,
    "other": 384,
    "twenties": 7_656,
    "thirties": 9_040,
    "forties": 5_168,
    "fifty-and-over": 2_136,
}

# New Taiwan dollars: sums from a hundred to a million, some 3 to 30,000 US dollars, spread evenly by their logarithm.
# A million is the limit that banks in Taiwan seldom exceed (the file's published maximum is 1,000,000).
_SMALL, _DECADES = 100.0, 4.0
FEATURES: Final = 1 + 6 * 4 + 6 * 2


def load(client: str, split: str = "credit") -> Dataset:
    """The training rows of one bank."""
    members = _members(split)
    if client not in members:
        raise BadInput(f"{split} has no client {client!r}: its clients are {', '.join(members)}")
    features, labels, table = _records()
    column = _EDUCATION if split == "credit" else _AGE
    rows = np.isin(table[:, column], list(members[client])) & ~_is_test(len(labels))
    return Dataset(features[rows], labels[rows])


def test() -> Dataset:
    """The public test set: 6,000 card holders, of all banks."""
    features, labels, _ = _records()
    chosen = _is_test(len(labels))
    return Dataset(features[chosen], labels[chosen])


def model() -> nn.Module:
    """Logistic regression from zero: the loss is convex, and every client starts alike whatever its torch."""
    from torch import nn

    layer = nn.Linear(FEATURES, 2)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _members(split: str) -> Mapping[str, tuple[int, ...] | range]:
    return _BY_EDUCATION if split == "credit" else _BY_AGE


def _is_test(count: int) -> NDArray[np.bool_]:
    chosen: NDArray[np.bool_] = np.arange(count) % 5 == 4
    return chosen


@cache
def _records() -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Features, labels, and the table itself, which says who belongs to which bank."""
    table = _read(locate(_FOLDER, _FILE, _SHA256, _URL, opened=_numbers))
    return _scale(table), table[:, _LABEL], table


def _numbers(content: bytes) -> bytes:
    """The table's numbers, whatever its line endings, and whether 500000 is written so or as 5.00E+05."""
    return _read(io.BytesIO(content)).astype("<i8").tobytes()


def _read(file: Path | BinaryIO) -> NDArray[np.int64]:
    return np.loadtxt(file, delimiter=",", skiprows=1, ndmin=2).astype(np.int64)


def _scale(table: NDArray[np.int64]) -> NDArray[np.float32]:
    """Public constants and quotients of a record's own numbers only, each within [-1, 1]."""
    limit = table[:, _LIMIT].astype(np.float64)
    status = table[:, _STATUS]  # months of delay; -1 paid duly; 0 and -2 UCI does not explain: revolving, not used
    bills, payments = table[:, _BILLS].astype(np.float64), table[:, _PAYMENTS].astype(np.float64)
    columns = (
        _logarithmic(limit)[:, None],
        status >= 1,
        np.clip(status - 1, 0, 3) / 3,  # one month late is the column before; from four on it is all the same
        status == -1,
        status == -2,
        bills / np.maximum(limit, 1)[:, None],  # the share of the limit that is used
        _logarithmic(payments),
    )
    scaled: NDArray[np.float64] = np.clip(np.concatenate(columns, axis=1), -1, 1)
    return scaled.astype(np.float32)


def _logarithmic(dollars: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 up to 100 dollars, 1 at a million."""
    found: NDArray[np.float64] = np.log10(np.maximum(dollars, _SMALL) / _SMALL) / _DECADES
    return found


def _hazards(other: str) -> tuple[Hazard, ...]:
    return (
        hazard("tuning", "recipes tuned by cross-validation on these training rows, not charged to the budget"),
        hazard("sample-counts", "row counts of the banks, used as weights and divisors, are treated as public"),
        hazard("other", f"the pilot {other!r} splits the same people otherwise: what both spend on a person adds up"),
    )


def _weights(clients: Mapping[str, object]) -> tuple[float, ...]:
    """Rows over the most rows, to two digits: the mean is then close to that of the pooled records."""
    largest = max(ROWS[client] for client in clients)
    return tuple(max(0.01, round(ROWS[client] / largest, 2)) for client in clients)


def _pilot(name: str, other: str, title: str) -> Pilot:
    clients = _members(name)
    return Pilot(
        name=name,
        title=title,
        clients=tuple(clients),
        classes=("paid", "default"),
        load=partial(load, split=name),
        test=test,
        model=model,
        private=_PRIVATE,
        public=_PUBLIC,
        budget=Budget(epsilon=1.0, delta=1e-6),
        hazards=_hazards(other),
        source="Default of Credit Card Clients (Yeh and Lien 2009), UCI, doi:10.24432/C55S3H, CC BY 4.0",
        weights=_weights(clients),
        rows=tuple(ROWS[client] for client in clients),
        metric="auc",
    )


# By five-fold cross-validation on the training rows of `credit`, in a faster simulation of the steps that
# `benchmarks.tune` takes: the best by the metric or, within .01 of it, the one of least loss.
_PRIVATE: Final = Recipe(DPSGD(noise_multiplier=23.81, sampling_rate=1.0, steps=3, clip=1.0), LocalOptimizer(8.0), 10)
_PUBLIC: Final = Recipe(SGD(sampling_rate=1.0, steps=20), LocalOptimizer(1.0, momentum=0.9), 10)
PILOT = _pilot(
    "credit",
    "credit-age",
    "Default on credit cards at four banks, by education",
)
BY_AGE = _pilot(
    "credit-age",
    "credit",
    "Default on credit cards at four banks, by age",
)
