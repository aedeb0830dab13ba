from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import mnist
from securefl import training, vector
from securefl.errors import DataUnavailable
from securefl.privacy import accountant
from securefl.privacy.mechanism import DPSGD


def test_the_settings_cost_epsilon_2_30() -> None:
    assert mnist.EPOCH.steps * mnist.EPOCHS == 15_000
    assert accountant.epsilon([mnist.EPOCH] * mnist.EPOCHS, mnist.DELTA) == pytest.approx(2.30, abs=0.01)


def test_the_network_is_that_of_the_example_and_can_be_trained_record_by_record() -> None:
    module = vector.build(mnist.network, seed=0)
    training.check(module)
    assert len(vector.flatten(module)) == 26_010
    assert module(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_data_that_is_missing_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECUREFL_DATA", str(tmp_path))
    with pytest.raises(DataUnavailable, match="SECUREFL_DATA") as raised:
        mnist.records("t10k")
    assert "\n" not in str(raised.value)


def test_files_of_another_data_set_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECUREFL_DATA", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16 + 28 * 28)))
    with pytest.raises(DataUnavailable, match="not MNIST"):
        mnist.records("t10k")


@pytest.mark.needs_data
def test_the_records_are_scaled_by_the_published_constants() -> None:
    data = mnist.records("t10k")
    assert data.features.shape == (10_000, 1, 28, 28)
    assert np.bincount(data.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert float(data.features.min()) == pytest.approx(-0.4242, abs=1e-4)
    assert float(data.features.mean()) == pytest.approx(0, abs=0.02)


@pytest.mark.slow
@pytest.mark.needs_data
def test_ten_clients_each_spend_what_the_central_model_would(monkeypatch: pytest.MonkeyPatch) -> None:
    short = DPSGD(1.1, mnist.EPOCH.sampling_rate, steps=1)
    monkeypatch.setattr(mnist, "EPOCH", short)
    (record,) = mnist.federated(rounds=1)
    assert len(record.contributors) == mnist.CLIENTS
    assert set(record.epsilon.values()) == {accountant.epsilon([short], mnist.DELTA)}
