from __future__ import annotations

import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from securefl import training, vector
from securefl.data import Dataset
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD, SGD
from securefl.training.pace import Pace, choose, fitting, seconds

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # as in train, which says why

RARE = 1e-9  # a sampling rate at which every batch is empty, so that the steps themselves use no layer


def records(*shape: int) -> Dataset:
    return Dataset(np.ones((4, *shape), np.float32), np.array([0, 1, 0, 1]))


class Watched(nn.Module):
    """Remembers the largest feature that it was given in training, for each time it was used."""

    seen: ClassVar[list[float]] = []

    def __init__(self, width: int) -> None:
        super().__init__()
        self.last = nn.Linear(width, 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.append(float(features.max()))
        outputs: torch.Tensor = self.last(features)
        return outputs


def uses(width: int, steps: int) -> list[float]:
    Watched.seen.clear()
    training.train(Watched(width), records(width), DPSGD(1.0, RARE, steps), LocalOptimizer(0.1))
    return list(Watched.seen)


def test_a_long_round_is_timed_and_only_once_a_process() -> None:
    short, long, again = uses(5, 99), uses(5, 100), uses(5, 100)
    assert len(short) == len(again) < len(long)


def test_another_architecture_is_timed_anew() -> None:
    assert len(uses(6, 100)) == len(uses(7, 100)) > len(uses(7, 100))


def test_no_record_is_timed_or_measured() -> None:
    """The data's features are all 1."""
    assert set(uses(8, 100)) == {0.0}


def test_whether_time_was_measured_changes_nothing_of_what_is_random() -> None:
    module, data = nn.Sequential(nn.Linear(9, 40), nn.Dropout(), nn.Linear(40, 2)), records(9)
    chosen, forced = (
        training.train(
            module, data, DPSGD(1.0, 0.5, 100), LocalOptimizer(0.1), np.random.default_rng(3).bytes, pace=pace
        )
        for pace in (None, choose(module, data, DPSGD(1.0, 0.5, 1)))
    )
    np.testing.assert_allclose(chosen, forced, rtol=1e-4, atol=1e-6)


def test_the_mode_that_is_chosen_is_the_faster_one() -> None:
    """A wide layer in full is a hundred times what it is made of; nothing else is as clear on a busy machine."""
    module, data = nn.Linear(4000, 400), records(4000)
    long = DPSGD(1.0, 1.0, 100)
    assert choose(module, data, long).mode == "ghost"
    assert seconds(module, data, Pace("ghost", 4), 4) < seconds(module, data, Pace("hooks", 4), 4)


def large() -> nn.Module:
    """5 million parameters."""
    return nn.Sequential(nn.Linear(1000, 2500), nn.ReLU(), nn.Linear(2500, 1000), nn.ReLU(), nn.Linear(1000, 10))


def test_a_large_model_has_fewer_rows_at_once_where_gradients_are_held_in_full() -> None:
    module, data = vector.build(large, 0), records(1000)
    assert fitting(module, data, "ghost").at_once == 512
    assert 1 < fitting(module, data, "hooks").at_once <= 2**28 // (4 * 5_000_000)


@pytest.mark.parametrize("mechanism", [DPSGD(1.0, 0.5, 1), SGD(0.5, 1)])
def test_large_activations_leave_fewer_rows_at_once(mechanism: DPSGD | SGD) -> None:
    module = nn.Sequential(nn.Conv2d(1, 16, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))
    # 16 maps of 254 x 254 float32 are 4 MB for each layer's output
    assert 1 < choose(module, records(1, 256, 256), mechanism).at_once <= 2**28 // 4_000_000
    assert choose(module, records(1, 8, 8), mechanism).at_once == 512


PROGRAM = """
import resource, sys
import numpy as np
from securefl import training
from securefl.data import Dataset
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD
from securefl.training.pace import Pace, fitting
from tests.securefl.training.test_pace import large

def grown(rate, pace):
    training.train(module, data, DPSGD(1.0, rate, 1), LocalOptimizer(0.1), pace=pace)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

mode, rows = sys.argv[1], int(sys.argv[2])
data, module = Dataset(np.ones((rows, 1000), np.float32), np.zeros(rows, np.int64)), large()
print(-grown(1e-9, Pace(mode, 1)) + grown(1.0, fitting(module, data, mode)))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "rows"), [("hooks", 64), ("ghost", 512)])
def test_a_batch_for_5_million_parameters_takes_little_memory(mode: str, rows: int) -> None:
    """In full its gradients are 1.3 and 10 GB. Allowed are what is held, and as much again that lives for a moment."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode, str(rows)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2 * 2**28
