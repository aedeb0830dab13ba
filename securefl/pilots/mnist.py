"""MNIST as McMahan et al. (AISTATS 2017, section 3) split it: shuffled, or by shards of one label.

``mnist``: 100 clients with 600 shuffled images each. ``mnist-shards``: sorted by label, cut into 200 shards of 300, two
to each of 100 clients. ``mnist-1000``: likewise 2,000 shards of 30, two to each of 1,000 clients. Their two networks
are here: the CNN, which is the pilots' own, and ``two_layer`` ("2NN"), eight times smaller.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from securefl.data import Dataset
from securefl.download import locate
from securefl.errors import BadInput
from securefl.partition import Rows, even, shards
from securefl.pilots import Pilot, Recipe
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD, SGD, Budget
from securefl.report.hazards import Hazard, hazard

if TYPE_CHECKING:
    from torch import nn

_FOLDER = "mnist"
_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
# Of what is in the archives: how it was compressed does not matter.
_SHA256: Final = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_IMAGES_HEAD, _LABELS_HEAD = 16, 8  # bytes before the pixels, and before the labels
_SEED: Final = 1
IMAGES: Final = 60_000
_CLASSES: Final = 10


def load(client: str, split: str = "mnist") -> Dataset:
    """The images of one client."""
    clients = _names(_COUNTS[split])
    if client not in clients:
        raise BadInput(f"{split} has no client {client!r}: its clients are {clients[0]} to {clients[-1]}")
    images, labels = _records("train")
    rows = _split(split)[clients.index(client)]
    return Dataset(images[rows], labels[rows])


def test() -> Dataset:
    """The public test set: the 10,000 images that MNIST sets aside."""
    return Dataset(*_records("t10k"))


def convolutional() -> nn.Module:
    """McMahan's CNN, 1,663,370 parameters: 5x5 convolutions of 32 and 64 channels, each pooled 2x2, and 512 units."""
    from torch import nn

    return nn.Sequential(
        *(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(), nn.Linear(512, _CLASSES)),
    )


def two_layer() -> nn.Module:
    """McMahan's 2NN, 199,210 parameters: two hidden layers of 200 units."""
    from torch import nn

    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(28 * 28, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, _CLASSES)),
    )


def _names(count: int) -> tuple[str, ...]:
    width = len(str(count))
    return tuple(f"client-{number:0{width}}" for number in range(1, count + 1))


@cache
def _split(split: str) -> Sequence[Rows]:
    labels, count = _records("train")[1], _COUNTS[split]
    return even(len(labels), count, _SEED) if split == "mnist" else shards(labels, count, 2, _SEED)


@cache
def _records(part: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pixels from 0 to 1, shape (n, 1, 28, 28), and the digits."""
    pixels = _content(f"{part}-images-idx3-ubyte")[_IMAGES_HEAD:].reshape(-1, 1, 28, 28)
    labels = _content(f"{part}-labels-idx1-ubyte")[_LABELS_HEAD:]
    return (pixels / np.float32(255)).astype(np.float32), labels.astype(np.int64)


def _content(name: str) -> NDArray[np.uint8]:
    path = locate(_FOLDER, f"{name}.gz", _SHA256[name], f"{_URL}{name}.gz", opened=gzip.decompress)
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8)


_COUNTS: Final = {"mnist": 100, "mnist-shards": 100, "mnist-1000": 1000}
_HAZARDS: Final = (
    hazard("sample-counts", "every client is known to have equally many images, and their number is a divisor"),
    hazard("other", "mnist, mnist-shards and mnist-1000 split the same images: what they spend on one of them adds up"),
)
_SKEW: Final = hazard("preprocessing", "images are dealt out by their labels, as in the paper that is compared with")


def _pilot(name: str, title: str, private: Recipe, public: Recipe, hazards: tuple[Hazard, ...]) -> Pilot:
    count = _COUNTS[name]
    return Pilot(
        name=name,
        title=title,
        clients=_names(count),
        classes=tuple("0123456789"),
        load=partial(load, split=name),
        test=test,
        model=convolutional,
        private=private,
        public=public,
        budget=Budget(epsilon=8.0, delta=1e-5),
        hazards=hazards,
        source="MNIST (LeCun, Cortes, Burges), CC BY-SA 3.0",
        weights=(1.0,) * count,
        rows=(IMAGES // count,) * count,
    )


# Nothing was tuned on these images: B=10 and one epoch a round are McMahan's (E=1), learning rates are in the range
# that the paper searched; the private recipe takes every image in every step, which needs least noise, and clips at 1.
_PRIVATE: Final = Recipe(DPSGD(noise_multiplier=4.36, sampling_rate=1.0, steps=5, clip=1.0), LocalOptimizer(0.5), 10)
PILOT = _pilot(
    "mnist",
    "Handwritten digits at 100 clients",
    private=_PRIVATE,
    public=Recipe(SGD(sampling_rate=1 / 60, steps=60), LocalOptimizer(0.1), 20),
    hazards=_HAZARDS,
)
SHARDS = _pilot(
    "mnist-shards",
    "Handwritten digits at 100 clients with two shards each",
    private=_PRIVATE,
    public=Recipe(SGD(sampling_rate=1 / 60, steps=60), LocalOptimizer(0.05), 20),
    hazards=(*_HAZARDS, _SKEW),
)
THOUSAND = _pilot(
    "mnist-1000",
    "Handwritten digits at 1,000 clients with two shards each",
    private=_PRIVATE,
    public=Recipe(SGD(sampling_rate=1 / 6, steps=6), LocalOptimizer(0.05), 20),
    hazards=(*_HAZARDS, _SKEW),
)
