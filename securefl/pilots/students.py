"""Final grades at two Portuguese schools in two subjects: four clients, and people who are at two of them.

``students`` predicts the final grade, ``students-pass`` whether it is a pass. The earlier grades of the same year, G1
and G2, are not features: with them the last one is read off (they correlate with it at .8 to .9), but only when most of
the year is over, and whoever knows them needs no model to see who needs help. This is setup C of Cortez and Silva
(2008). Nor are sex, parents' marriage and jobs, romance and drinking: no school should score pupils by these.

A pupil who takes both subjects has a record in each, at two clients: 382 do. The clients are therefore not disjoint. A
client's epsilon covers the record there; of both records together the epsilons add up (docs/pilots.md).
"""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections.abc import Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from securefl.data import Dataset
from securefl.download import locate
from securefl.errors import BadInput
from securefl.pilots import Pilot, Recipe, Scale
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD, SGD, Budget
from securefl.report.hazards import hazard

if TYPE_CHECKING:
    from torch import nn

Task = Literal["students", "students-pass"]
Record = Mapping[str, str]

_FOLDER = "student_performance"
_URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/00320/student.zip"
_SHA256: Final = {
    "mathematics": ("student-mat.csv", "e47f9ee225e1ee6e69b7564e6dac7123e80b8486677fe111f351964cef5dec80"),
    "portuguese": ("student-por.csv", "a7594a11d7771c0efe1a740824e0e833da9c4cad07c39a9766a874575563fb3f"),
}
_CLIENTS: Final = {
    "gp-mathematics": ("GP", "mathematics"),  # Gabriel Pereira
    "ms-mathematics": ("MS", "mathematics"),  # Mousinho da Silveira
    "gp-portuguese": ("GP", "portuguese"),
    "ms-portuguese": ("MS", "portuguese"),
}
CLIENTS: Final = tuple(_CLIENTS)
# Declared training rows, in the order of CLIENTS; a test compares them with the split.
ROWS: Final = (280, 38, 339, 185)

# What UCI's own script (student-merge.R) tells people apart by.
_PERSON: Final = (
    *("school", "sex", "age", "address", "famsize", "Pstatus", "Medu", "Fedu", "Mjob", "Fjob", "reason"),
    *("nursery", "internet"),
)

PASS: Final = 10  # of 20 points: a pass in Portugal
POINTS: Final = 4.0  # a label's unit: nearer than half of it is within 2 points, a tenth of the scale

# (lowest, highest) answer that student.txt lists; a value is spread over [-1, 1].
_ANSWERS: Final[Mapping[str, tuple[float, float]]] = {
    "age": (15, 22),
    "Medu": (0, 4),
    "Fedu": (0, 4),
    "traveltime": (1, 4),
    "studytime": (1, 4),
    "failures": (0, 3),
    "freetime": (1, 5),
    "goout": (1, 5),
    "health": (1, 5),
    "absences": (0, 30),  # lessons; more than 30, some six weeks of one a day, count as 30
}
_YES: Final = ("schoolsup", "famsup", "paid", "activities", "nursery", "higher", "internet")
FEATURES: Final = len(_ANSWERS) + len(_YES) + 2


def load(client: str, task: Task = "students") -> Dataset:
    """The training rows of one school in one subject."""
    if client not in _CLIENTS:
        raise BadInput(f"{task} has no client {client!r}: its clients are {', '.join(CLIENTS)}")
    school, subject = _CLIENTS[client]
    records = [record for record in _records(subject) if record["school"] == school and not _is_test(record)]
    return _dataset([(record, subject) for record in records], task)


def test(task: Task = "students") -> Dataset:
    """The public test set: all records of a fifth of the people."""
    return _dataset(
        [(record, subject) for subject in _SHA256 for record in _records(subject) if _is_test(record)], task
    )


def regression() -> nn.Module:
    """Linear regression from zero: it begins by saying that everyone just passes."""
    return _linear(1)


def classification() -> nn.Module:
    """Logistic regression from zero."""
    return _linear(2)


def person(record: Record) -> str:
    """What is equal in the two records of one person; a few people share it."""
    return ";".join(record[name] for name in _PERSON)


def _linear(outputs: int) -> nn.Module:
    from torch import nn

    layer = nn.Linear(FEATURES, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _is_test(record: Record) -> bool:
    """By person, so that nobody is in the test set with one record and trained on with the other."""
    return hashlib.sha256(person(record).encode()).digest()[0] % 5 == 4


@cache
def _records(subject: str) -> tuple[Record, ...]:
    file, sha256 = _SHA256[subject]
    path = locate(_FOLDER, file, sha256, _URL, extracted=partial(_member, file))
    with path.open(newline="", encoding="utf-8") as lines:
        return tuple(csv.DictReader(lines, delimiter=";"))


def _member(file: str, archive: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return opened.read(file)


def _dataset(records: list[tuple[Record, str]], task: Task) -> Dataset:
    features = np.array([_features(record, subject) for record, subject in records], dtype=np.float32)
    grades = np.array([int(record["G3"]) for record, _ in records])
    if task == "students-pass":
        return Dataset(features, (grades >= PASS).astype(np.int64))
    return Dataset(features, ((grades - PASS) / POINTS).astype(np.float32))


def _features(record: Record, subject: str) -> NDArray[np.float64]:
    """By what the questionnaire allows, never by what was answered; each within [-1, 1]."""
    answers = [(2 * float(record[name]) - low - high) / (high - low) for name, (low, high) in _ANSWERS.items()]
    yes = [float(record[name] == "yes") for name in _YES]
    urban, mathematics = float(record["address"] == "U"), float(subject == "mathematics")
    scaled: NDArray[np.float64] = np.clip([*answers, *yes, urban, mathematics], -1, 1)
    return scaled


_HAZARDS: Final = (
    hazard("tuning", "recipes tuned by cross-validation on these training rows, not charged to the budget"),
    hazard("sample-counts", "row counts of the four clients, used as weights and divisors, are treated as public"),
    hazard(
        "other",
        "382 pupils have a record in each subject, at two clients: an owner's epsilon covers the one record that it "
        "holds, and of a pupil's two together the epsilons of both owners add up",
    ),
)
_SOURCE: Final = "Student Performance (Cortez and Silva 2008), UCI, doi:10.24432/C5TG7T, CC BY 4.0"
# rows / 339, to two digits: the mean is then close to that of the pooled records
_WEIGHTS: Final = (0.83, 0.11, 1.00, 0.55)
_BUDGET: Final = Budget(epsilon=4.0, delta=1e-5)

# All by five-fold cross-validation on training rows, in a faster simulation of the steps that `benchmarks.tune` takes:
# the best by the metric or, within .01 of it, the one of least loss.
GRADES = Pilot(
    name="students",
    title="Final grades at two schools in two subjects",
    clients=CLIENTS,
    classes=(),
    load=load,
    test=test,
    model=regression,
    private=Recipe(DPSGD(noise_multiplier=6.09, sampling_rate=1.0, steps=2, clip=1.0), LocalOptimizer(0.5), rounds=15),
    public=Recipe(SGD(sampling_rate=1.0, steps=10), LocalOptimizer(0.1, momentum=0.9), rounds=10),
    budget=_BUDGET,
    hazards=_HAZARDS,
    source=_SOURCE,
    weights=_WEIGHTS,
    rows=ROWS,
    disjoint=False,
    metric="mae",
    scale=Scale("grade points", POINTS),
)
PASS_FAIL = Pilot(
    name="students-pass",
    title="Pass or fail at two schools in two subjects",
    clients=CLIENTS,
    classes=("fail", "pass"),
    load=partial(load, task="students-pass"),
    test=partial(test, task="students-pass"),
    model=classification,
    private=Recipe(DPSGD(noise_multiplier=4.31, sampling_rate=1.0, steps=1, clip=1.0), LocalOptimizer(4.0), rounds=15),
    public=Recipe(SGD(sampling_rate=1.0, steps=10), LocalOptimizer(0.03, momentum=0.9), rounds=10),
    budget=_BUDGET,
    hazards=_HAZARDS,
    source=_SOURCE,
    weights=_WEIGHTS,
    rows=ROWS,
    disjoint=False,
    metric="auc",
    records="students",
)
