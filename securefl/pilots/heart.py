"""Heart-disease diagnosis at four real hospitals: Cleveland, Hungarian (Budapest), Switzerland and Long Beach VA.

Rows, features and split are those of FLamby's Fed-Heart-Disease (du Terrail et al., NeurIPS 2022), so that figures can
be compared; scaling is not: FLamby fits it on the records, this pilot uses clinical constants. The pooled test rows are
declared public. Logistic regression, starting from zero.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from securefl.data import Dataset
from securefl.download import locate
from securefl.errors import BadInput
from securefl.pilots import Pilot, Recipe
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD, SGD, Budget
from securefl.report.hazards import hazard

if TYPE_CHECKING:
    from torch import nn

CLIENTS = ("cleveland", "hungarian", "switzerland", "va")
# Declared training rows, in the order of CLIENTS; a test compares them with the split.
ROWS = (199, 172, 30, 85)

_FOLDER = "fed_heart_disease"
_URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/heart-disease/"
_SHA256 = {
    "cleveland": "a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8",
    "hungarian": "d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796",
    "switzerland": "834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314",
    "va": "e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f",
}

# Columns of the files (heart-disease.names, section 7). Slope, ca and thal (10 to 12) are left out, as in FLamby: they
# are missing almost everywhere outside Cleveland. The label, column 13, counts narrowed vessels; above 0 is disease.
_CHEST_PAIN, _REST_ECG, _UNUSED, _LABEL = 2, 6, (10, 11, 12), 13

# (centre, half-range) of what is measured; a value becomes (value - centre) / half-range, cut off at [-1, 1].
_CLINICAL = {
    0: (50.0, 30.0),  # age, years: adults from 20 to 80
    3: (130.0, 50.0),  # resting systolic pressure, mm Hg: 80 (shock below about 90) to 180 (crisis; ACC/AHA 2017)
    4: (200.0, 200.0),  # serum cholesterol, mg/dl: desirable below 200 (NCEP ATP III); Switzerland writes 0 for unknown
    7: (140.0, 60.0),  # highest heart rate, beats a minute: 80 to 200, which is 220 - age at 20 (Fox 1971)
    9: (1.0, 2.0),  # ST depression, mm: 1 is a positive exercise test (ACC/AHA 2002), 3 is severe
}
_BINARY = (1, 5, 8)  # sex, fasting sugar above 120 mg/dl, angina on exercise: 0 or 1 as they are
# Codes listed in heart-disease.names, section 7; the first of each is the reference and gets no column.
_CODES = {_CHEST_PAIN: (2, 3, 4), _REST_ECG: (1, 2)}
FEATURES = len(_CLINICAL) + len(_BINARY) + sum(len(codes) for codes in _CODES.values())


def load(client: str) -> Dataset:
    """The training rows of one hospital."""
    if client not in CLIENTS:
        raise BadInput(f"heart has no client {client!r}: its clients are {', '.join(CLIENTS)}")
    features, labels, training, _ = _split(client)
    return Dataset(features[training], labels[training])


def test() -> Dataset:
    """The public test set: the four hospitals' test rows, pooled."""
    parts = [_split(client) for client in CLIENTS]
    features = np.concatenate([features[rows] for features, _, _, rows in parts])
    return Dataset(features, np.concatenate([labels[rows] for _, labels, _, rows in parts]))


def held_out(client: str) -> Dataset:
    """The test rows of one hospital."""
    features, labels, _, rows = _split(client)
    return Dataset(features[rows], labels[rows])


def model() -> nn.Module:
    """Logistic regression from zero: the loss is convex, and every client starts alike whatever its torch."""
    from torch import nn

    layer = nn.Linear(FEATURES, 2)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


@cache
def _split(client: str) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Features, labels, training rows and test rows of one hospital, split as FLamby splits them."""
    from sklearn.model_selection import train_test_split

    file = f"processed.{client}.data"
    records = _read(locate(_FOLDER, file, _SHA256[client], _URL + file))
    labels = (records[:, _LABEL] > 0).astype(np.int64)
    common = np.bincount(labels, minlength=2).min() > 2  # Switzerland has one healthy record: nothing to stratify by
    training, held_out = train_test_split(
        np.arange(len(labels)), train_size=0.66, test_size=0.34, random_state=43, stratify=labels if common else None
    )
    return _scale(records), labels, training, held_out


def _read(path: Path) -> NDArray[np.float64]:
    """The complete records of a file: rows with a missing value in a used column are left out, as FLamby does."""
    table = np.genfromtxt(path, delimiter=",", missing_values="?", filling_values=np.nan)
    used = [column for column in range(table.shape[1]) if column not in _UNUSED]
    complete: NDArray[np.float64] = table[~np.isnan(table[:, used]).any(axis=1)]
    return complete


def _scale(records: NDArray[np.float64]) -> NDArray[np.float32]:
    measured = [(records[:, column] - centre) / half for column, (centre, half) in _CLINICAL.items()]
    binary = [records[:, column] for column in _BINARY]
    coded = [records[:, column] == code for column, codes in _CODES.items() for code in codes]
    scaled: NDArray[np.float64] = np.clip(np.stack([*measured, *binary, *coded], axis=1), -1, 1)
    return scaled.astype(np.float32)


PILOT = Pilot(
    name="heart",
    title="Heart-disease diagnosis at four hospitals",
    clients=CLIENTS,
    classes=("healthy", "disease"),
    load=load,
    test=test,
    model=model,
    # Both chosen by `python -m benchmarks.tune heart`, on training rows only.
    private=Recipe(DPSGD(noise_multiplier=2.9, sampling_rate=1.0, steps=1, clip=1.0), LocalOptimizer(8.0), rounds=10),
    public=Recipe(SGD(sampling_rate=1.0, steps=20), LocalOptimizer(0.3), rounds=10),
    budget=Budget(epsilon=5.0, delta=1e-5),
    hazards=(
        hazard("tuning", "recipes tuned by cross-validation on these training rows, not charged to the budget"),
        hazard("sample-counts", "row counts of the hospitals, used as weights and divisors, are treated as public"),
        hazard("preprocessing", "the split into training and test rows is stratified by label"),
    ),
    source="Heart Disease (Janosi, Steinbrunn, Pfisterer, Detrano 1988), UCI, doi:10.24432/C52P4X, CC BY 4.0",
    # rows / 199, to two digits: the mean is then close to that of the pooled records
    weights=(1.00, 0.86, 0.15, 0.43),
    rows=ROWS,
    held_out=held_out,
)
