from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from securefl import Budget, Client, Dataset, LocalOptimizer, SecAgg, Server, federate, training, vector
from securefl.errors import BadInput
from securefl.evaluation import accuracy
from securefl.llm.cifg import CIFG
from securefl.objective import IGNORED, losses
from securefl.plan import ClientLevel, PrivacyTerms
from securefl.privacy.mechanism import DPSGD, SGD
from securefl.privacy.simulation import seeded
from securefl.training.batches import Batch
from securefl.training.private import Recorded

WORDS, WIDTH, UNITS, LENGTH = 11, 4, 7, 5


def tiny() -> nn.Module:
    return CIFG(WORDS, WIDTH, UNITS)


def cyclic(rows: int, seed: int = 0) -> Dataset:
    """Every word is followed by the next one, which a model of the last word alone can learn."""
    first = np.random.RandomState(seed).randint(0, WORDS, (rows, 1))
    words = (first + np.arange(LENGTH + 1)) % WORDS
    return Dataset(words[:, :-1].astype(np.int64), words[:, 1:].astype(np.int64))


def by_the_equations(module: CIFG, tokens: list[int]) -> NDArray[np.float64]:
    """One row's scores, word by word and unit by unit, in float64."""
    own = {name.partition(".")[2]: each.detach().double().numpy() for name, each in module.named_parameters()}
    weights, bias = own["gates"].reshape(3, UNITS, 2 * WIDTH), own["gate_bias"].reshape(3, UNITS)
    shown, cell, scores = [0.0] * WIDTH, [0.0] * UNITS, []
    for token in tokens:
        given = [math.sqrt(WIDTH) * value for value in own["embedding"][token]] + shown
        opened = []
        for unit in range(UNITS):
            forget, output, candidate = (
                sum(w * x for w, x in zip(weights[gate, unit], given, strict=True)) + bias[gate, unit]
                for gate in range(3)
            )
            kept = 1 / (1 + math.exp(-forget))
            cell[unit] = kept * cell[unit] + (1 - kept) * math.tanh(candidate)
            opened.append(math.tanh(cell[unit]) / (1 + math.exp(-output)))
        shown = [sum(p * x for p, x in zip(row, opened, strict=True)) for row in own["projection"]]
        scores.append(own["embedding"] @ shown + own["output_bias"])
    return np.array(scores)


def test_it_computes_what_the_equations_say() -> None:
    module = vector.build(tiny, 3)
    assert isinstance(module, CIFG)
    vector.load(module, np.random.RandomState(1).normal(0, 0.7, len(vector.flatten(module))).astype(np.float32))
    tokens = torch.tensor([[0, 3, 3, 10, 7], [5, 1, 0, 2, 9]])
    found = module(tokens).detach().numpy()
    assert found.shape == (2, LENGTH, WORDS)
    for row in range(2):
        assert np.allclose(found[row], by_the_equations(module, tokens[row].tolist()), atol=1e-5)


def test_with_the_papers_sizes_it_has_their_parameters() -> None:
    assert len(vector.flatten(vector.build(lambda: CIFG(10_000), 0))) == 1_422_250


@pytest.mark.parametrize(("vocabulary", "width", "units"), [(0, 4, 4), (1 << 24, 4, 4), (5, 0, 4), (5, 4, 0)])
def test_sizes_that_it_cannot_have_are_refused(vocabulary: int, width: int, units: int) -> None:
    with pytest.raises(BadInput, match="at least 1 each"):
        CIFG(vocabulary, width, units)


def test_the_bias_can_start_from_what_is_known() -> None:
    bias = np.arange(WORDS, dtype=np.float32)
    module = CIFG(WORDS, WIDTH, UNITS, bias)
    scores = module(torch.zeros(1, LENGTH, dtype=torch.int64))
    assert (scores.argmax(-1) == WORDS - 1).all()
    with pytest.raises(BadInput, match="one number a word"):
        CIFG(WORDS, WIDTH, UNITS, bias[1:])


def test_no_row_sees_another_and_no_word_the_next_one() -> None:
    module, data = vector.build(tiny, 0), cyclic(6)
    training.check(module)
    training.check_labels(module, data)
    training.check_apart(module, data)
    tokens = torch.from_numpy(data.features[:1])
    other = tokens.clone()
    other[0, 3] += 1
    assert torch.equal(module(tokens)[0, :3], module(other)[0, :3])
    assert not torch.equal(module(tokens)[0, 3:], module(other)[0, 3:])


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("mode", ["hooks", "ghost"])
def test_each_records_gradient_is_the_one_that_it_has_alone(mode: str) -> None:
    module, data = vector.build(tiny, 0), cyclic(3)
    batch = Batch(torch.from_numpy(data.features), torch.from_numpy(data.labels))
    batch.labels[1, 2:] = IGNORED
    recorded = Recorded(module, "ghost" if mode == "ghost" else "hooks")
    for row in range(3):
        total = torch.zeros(len(vector.flatten(module)), dtype=torch.float64)
        weights = torch.zeros(3, dtype=torch.float64)
        weights[row] = 1
        gradients = recorded.gradients(batch)
        for one, part in zip(gradients, torch.split(total, [one.size for one in gradients]), strict=True):
            one.add_weighted(weights, part)
        alone = vector.build(tiny, 0)
        losses(alone(batch.features[row : row + 1]), batch.labels[row : row + 1]).sum().backward()  # type: ignore[no-untyped-call]
        expected = torch.cat([each.grad.flatten() for each in alone.parameters() if each.grad is not None])
        assert torch.allclose(total.float(), expected, atol=1e-6)


@pytest.mark.parametrize("mechanism", [SGD(0.5, 60), DPSGD(0.01, 0.5, 60, 1.0)])
def test_it_learns_what_follows(mechanism: SGD | DPSGD) -> None:
    module, data = vector.build(tiny, 0), cyclic(40)
    update = training.train(module, data, mechanism, LocalOptimizer(0.5, 0.5), seeded(1, mechanism))
    vector.load(module, vector.flatten(module) + update)
    assert accuracy(module, cyclic(20, seed=1)) > 0.9


def test_a_federation_trains_it_under_masks_and_client_level_noise() -> None:
    privacy = PrivacyTerms(ClientLevel(noise_multiplier=0.5, clip=0.5), unit="client")
    server = Server(tiny, SecAgg(), SGD(0.5, 4), LocalOptimizer(0.5), rounds=1, privacy=privacy)
    budget = Budget(100.0, 1e-5)
    clients = [Client(f"role-{n}", cyclic(8, n), tiny, budget=budget, unit="client") for n in range(5)]
    (record,) = federate(server, clients)
    assert len(record.contributors) == 5
    assert all((spent := client.epsilon()) is not None and 0 < spent < 100 for client in clients)
    moved, start = server.model(), vector.flatten(vector.build(tiny, 0))
    assert moved is not None and np.isfinite(moved).all() and not np.array_equal(moved, start)
