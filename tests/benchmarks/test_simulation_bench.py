from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import simulation as bench
from benchmarks.__main__ import SUBJECTS
from benchmarks.peers import work
from benchmarks.peers.process import SIMULATORS_COMMAND
from securefl import training
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import Training
from securefl.training import cohort


def test_it_is_a_subject_of_the_one_command() -> None:
    assert "simulation" in SUBJECTS


@pytest.mark.parametrize("kind", bench.OPACUS)
def test_ours_is_the_engine_that_trains_clients_together(kind: str) -> None:
    assert cohort.fits(work.model(kind), LocalOptimizer(work.RATE))


@pytest.mark.parametrize("mechanism", [bench.OPEN, bench.PRIVATE])
def test_a_few_rounds_are_timed_and_train_nobody_alone(monkeypatch: pytest.MonkeyPatch, mechanism: Training) -> None:
    def alone(*_: object, **__: object) -> None:
        raise AssertionError("trained alone")

    monkeypatch.setattr(training, "train", alone)
    assert min(bench.ours("tabular", mechanism, 2)) > 0


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_the_loop_of_opacus_moves_the_model_and_an_empty_sample_only_by_noise() -> None:
    assert next(bench.opacus("tabular")) > 0
    module, (features, labels) = work.model("tabular"), (torch.zeros(50, 13), torch.zeros(50, dtype=torch.int64))
    moved = bench.opacus_update(module, features, labels)
    assert moved.isfinite().all()
    assert not torch.equal(moved, torch.nn.utils.parameters_to_vector(module.parameters()))


def test_a_simulator_that_is_not_there_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(bench, "SIMULATORS", tmp_path)
    name, value = bench.simulated(bench.APPLE_PFL, bench.Rounds("mlp", 3))
    assert value is None and SIMULATORS_COMMAND in name


def test_everybody_has_records_and_a_model_can_learn_them() -> None:
    found = work.records("mlp")
    assert len(found) == work.CLIENTS
    assert {len(labels) for _, labels in found} == {work.RECORDS}
    module = work.model("mlp")
    before = work.loss(module, "mlp")
    for features, labels in found[:20]:
        work.descend(module, torch.from_numpy(features), torch.from_numpy(labels))
    assert work.loss(module, "mlp") < before
    assert len(np.unique(np.concatenate([labels for _, labels in found]))) == 10
