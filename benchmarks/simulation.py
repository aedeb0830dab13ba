"""A round of many small clients in one process: ours, against a loop of Opacus and against federated simulators.

100 clients with 50 records each; 20 of them take part in a round and train for one epoch in batches of 10 (Poisson
samples of 10 expected, five steps). Ours is the embedded engine's real round, with keys, signed messages and ledgers,
and the encoding of ``plain``: no peer here masks anything. Opacus's loop is what privacy costs elsewhere: a copy of the
model, hooks, its optimizer and Poisson samples for each client, and the mean of the updates. All on one thread, but for
Flower, whose Ray has a process for each core.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import torch
from msgspec import Struct
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import nn

from benchmarks.peers import work
from benchmarks.peers.process import APPLE_PFL, FLOWER_SIMULATION, SIMULATORS, SIMULATORS_COMMAND, Peer, PeerMissing
from benchmarks.rows import Row, ratio_row
from securefl import DPSGD, SGD, Budget, Client, Dataset, LocalOptimizer, Plain, Server, vector
from securefl.learning import Cohort
from securefl.privacy.mechanism import Training
from securefl.round import conduct
from securefl.together import Together
from securefl.transcript import Transcript

TITLE = "A round of simulation: 100 clients of 50 records, 20 in a round, one epoch in batches of 10"
ROUNDS, QUICK_ROUNDS = 15, 6
WARM = 2  # rounds that are not counted: tables are made and caches filled in them
NOISE, CLIP = 1.0, 1.0
PRIVATE = DPSGD(NOISE, work.BATCH / work.RECORDS, work.RECORDS // work.BATCH, CLIP)
OPEN = SGD(work.BATCH / work.RECORDS, work.RECORDS // work.BATCH)
OPACUS = {"tabular": 10.0, "mlp": 3.0, "cnn": 1.2}
SIMULATED = (
    ("mlp_vs_flower", "mlp", FLOWER_SIMULATION, 3.0),
    ("mlp_vs_pfl", "mlp", APPLE_PFL, 1.0),
    ("cnn_vs_pfl", "cnn", APPLE_PFL, 1.0),
)


class Rounds(Struct, frozen=True):
    """What a simulator is asked for."""

    model: str
    rounds: int


def rows(quick: bool) -> list[Row]:
    """The rows of this subject."""
    count = QUICK_ROUNDS if quick else ROUNDS
    with one_thread():
        found = [opacus_row(kind, count, quick) for kind in OPACUS]
        own = {kind: milliseconds(ours(kind, OPEN, count)) for kind in ("mlp", "cnn")}
    for name, kind, script, goal in SIMULATED:
        peer, value = simulated(script, Rounds(kind, count))
        found.append(ratio_row(name, own[kind], "ms", peer, value, quick, at_least=goal))
    return found


def opacus_row(kind: str, count: int, quick: bool) -> Row:
    """Ours and the loop in turns, so that both meet what else the machine does."""
    parties, loop = ours(kind, PRIVATE, count), opacus(kind)
    own, other = [], []
    for seconds in parties:
        own.append(seconds)
        other.append(next(loop))
    value, peer_value = milliseconds(own), milliseconds(other)
    name = f"dp_{kind}_vs_opacus_loop"
    return ratio_row(name, value, "ms", "Opacus, a loop", peer_value, quick, at_least=OPACUS[kind])


def milliseconds(seconds: Iterator[float] | list[float]) -> float:
    """The median of a round, without the first ones."""
    return 1e3 * median(list(seconds)[WARM:])


def ours(kind: str, mechanism: Training, count: int) -> Iterator[float]:
    """Seconds of each round in the embedded engine."""
    private = isinstance(mechanism, DPSGD)
    budget = Budget(epsilon=1000.0, delta=1e-5) if private else None
    factory = made(kind)
    clients = [
        Client(f"client-{place:03d}", Dataset(*own), factory, budget=budget)
        for place, own in enumerate(work.records(kind))
    ]
    cohort = Cohort("fixed", work.COHORT)
    server = Server(factory, Plain(), mechanism, LocalOptimizer(work.RATE), rounds=count, cohort=cohort)
    together = Together(clients)
    together.enrol(server)
    before = vector.flatten(vector.build(factory, 0))
    for record in conduct(server, together, None, Transcript()):
        if len(record.contributors) != work.COHORT:
            raise AssertionError(f"not everybody contributed: {record.dropped}")
        yield record.seconds
    if np.array_equal(before, server.model()):  # type: ignore[arg-type]
        raise AssertionError("nothing was trained: the time means nothing")


def opacus(kind: str) -> Iterator[float]:
    """Seconds of one round after the other of a loop of Opacus over a cohort."""
    module, everybody, drawn = work.model(kind), work.records(kind), np.random.default_rng(0)
    while True:
        started = time.perf_counter()
        start = nn.utils.parameters_to_vector(module.parameters()).detach()
        total = torch.zeros_like(start)
        for place in drawn.choice(work.CLIENTS, work.COHORT, replace=False):
            features, labels = (torch.from_numpy(part) for part in everybody[place])
            total += opacus_update(module, features, labels) - start
        nn.utils.vector_to_parameters(start + total / work.COHORT, module.parameters())
        yield time.perf_counter() - started


def opacus_update(module: nn.Module, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """One client's parameters after its epoch."""
    recorded = GradSampleModule(copy.deepcopy(module))
    plain = torch.optim.SGD(recorded.parameters(), lr=work.RATE)
    descent = DPOptimizer(plain, noise_multiplier=NOISE, max_grad_norm=CLIP, expected_batch_size=work.BATCH)
    for _ in range(PRIVATE.steps):
        rows = (torch.rand(len(labels)) < PRIVATE.sampling_rate).nonzero().flatten()
        descent.zero_grad()
        nn.functional.cross_entropy(recorded(features[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
        descent.step()
    return nn.utils.parameters_to_vector(recorded.parameters()).detach()


def simulated(script: Path, asked: Rounds) -> tuple[str, float | None]:
    """A simulator's name and its milliseconds; None where its environment is not there."""
    try:
        with Peer(script, SIMULATORS / "bin" / "python", SIMULATORS_COMMAND) as peer:
            done = peer.rounds(asked)
            if not done.loss < work.loss(work.model(asked.model), asked.model):
                raise AssertionError(f"{peer.version} has trained nothing: its time means nothing")
            return peer.version, milliseconds(list(done.seconds))
    except PeerMissing as error:
        return str(error), None


def made(kind: str) -> Callable[[], nn.Module]:
    """One factory for all clients of a kind."""
    return lambda: work.model(kind)


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            yield
    finally:
        torch.set_num_threads(threads)
