"""Many clients in actors of a Ray on this machine: what an exchange costs, and rounds of a thousand clients.

Clients are real, with secure aggregation on a sparse graph and training on a record or two each; the coordinator is in
this process. What a machine's cores cannot do at once, it does in turn: a round takes as long as all its clients
together need, divided by the cores.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from statistics import mean, median

import numpy as np
from sklearn.datasets import load_digits
from torch import nn

from benchmarks.cohort import peak_bytes
from benchmarks.rows import Row, value_row
from protocols.wire import encode
from securefl import SGD, Client, Dataset, LocalOptimizer, SecAgg, Server
from securefl.closing import StateRequest
from securefl.engines.correspondence import Deadlines
from securefl.engines.ray.actors import Actors
from securefl.round import conduct
from securefl.settings import Ray
from securefl.transcript import Transcript

TITLE = "The Ray engine on one machine: digits, 650 parameters, secure aggregation"
CLIENTS, ROUNDS = 1000, 2
ASKED, REPETITIONS = 100, 30
# A client of a thousand waits for a core that it shares with what else is measured.
ENGINE = Ray(deadlines=Deadlines(exchange=600, training=600), patience=1800)
TRAINED = 1437  # records of 1797; the others are the test set


def rows(quick: bool) -> list[Row]:
    """The rows of this subject. Quick: an exchange only."""
    found = [value_row(f"exchange_milliseconds_ray_{ASKED}", exchange_milliseconds(), "ms", quick)]
    return found if quick else [*found, *simulation_rows(CLIENTS, ROUNDS)]


def exchange_milliseconds() -> float:
    """The median of an exchange in which each client refuses at once: what remains is the engine's."""
    requests = dict.fromkeys(names(ASKED), encode(StateRequest("nobody's run")))
    seconds = []
    with closing(Actors(names(ASKED), members, ENGINE)) as actors:
        for _ in range(REPETITIONS):
            started = time.perf_counter()
            if len(list(actors.exchange(0)(requests))) != ASKED:
                raise AssertionError("not everybody answered: the time means nothing")
            seconds.append(time.perf_counter() - started)
    return 1e3 * median(seconds)


def simulation_rows(clients: int, rounds: int) -> Iterator[Row]:
    """Whole rounds, everybody in each of them, and the most memory that the processes held."""
    server, others = coordinator(rounds), shards()
    with closing(Actors(names(clients), members, ENGINE)) as actors:
        actors.enrol(server)
        records = list(conduct(server, actors, rounds, Transcript()))
        held = [peak(process) for process in shards() - others]
    yield value_row(
        "clients_simulated_ray", min(len(record.contributors) for record in records), "clients", quick=False
    )
    yield value_row(f"round_seconds_ray_{clients}", mean(record.seconds for record in records), "s", quick=False)
    yield value_row(f"accuracy_ray_{clients}", records[-1].accuracy or 0.0, "", quick=False)
    yield value_row(f"actors_ray_{clients}", len(held), "processes", quick=False)
    yield value_row(f"actors_peak_ray_{clients}", sum(held) / 1e9, "GB", quick=False)
    yield value_row(f"coordinator_peak_ray_{clients}", peak_bytes() / 1e9, "GB", quick=False)


def names(clients: int) -> list[str]:
    return [f"client-{place:04d}" for place in range(clients)]


def members(names: Sequence[str]) -> list[Client]:
    """In an actor: clients with every thousandth record, each with others."""
    train = digits()[0]
    parts = (slice(int(name.removeprefix("client-")), None, CLIENTS) for name in names)
    return [
        Client(name, Dataset(train.features[part], train.labels[part]), model)
        for name, part in zip(names, parts, strict=True)
    ]


def coordinator(rounds: int) -> Server:
    mechanism, optimizer = SGD(sampling_rate=1.0, steps=5), LocalOptimizer(0.5)
    return Server(model, SecAgg(bound=4.0), mechanism, optimizer, rounds=rounds, test=digits()[1])


def model() -> nn.Module:
    layer = nn.Linear(64, 10)
    nn.init.zeros_(layer.weight)
    return layer


@cache
def digits() -> tuple[Dataset, Dataset]:
    """scikit-learn's digits, scaled by their public range and shuffled, the same each time: to train and to test."""
    loaded = load_digits()
    order = np.random.default_rng(0).permutation(len(loaded.target))
    features, labels = (loaded.data[order] / 16).astype(np.float32), loaded.target[order].astype(np.int64)
    return Dataset(features[:TRAINED], labels[:TRAINED]), Dataset(features[TRAINED:], labels[TRAINED:])


def shards() -> set[int]:
    """Processes on this machine that Ray calls by the name of what holds our clients."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            if path.read_bytes().startswith(b"ray::Shard"):
                found.add(int(path.parent.name))
    return found


def peak(process: int) -> int:
    """Bytes that a process held at most, as ``peak_bytes`` has it of this one."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
