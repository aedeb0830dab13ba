"""1,000 clients from MNIST by shards (two digits each, 60 images), a cohort of 100 a round, secagg, in one process.

Value rows: seconds of a round with cohorts of 100 and of 50 (the cost follows the cohort, not the roster), memory at
its peak, and what 50 rounds came to on the public test set. The network is McMahan's 2NN, B = 10, five local epochs.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from statistics import median
from typing import Final

from benchmarks.rows import Row, value_row
from securefl import SGD, Client, LocalOptimizer, SecAgg, Server
from securefl.learning import Cohort
from securefl.pilots import mnist, pilot
from securefl.round import federate

TITLE = "1,000 clients on one machine"
_LOCAL: Final = SGD(sampling_rate=1 / 6, steps=30)


def rows(quick: bool) -> list[Row]:
    """The rows of this subject."""
    return list(_rows(quick))


def _rows(quick: bool) -> Iterator[Row]:
    half, _ = _seconds(50, 2 if quick else 5)
    whole, accuracy = _seconds(100, 3 if quick else 50)
    yield value_row("many_round_seconds_cohort_50", half, "s", quick)
    yield value_row("many_round_seconds_cohort_100", whole, "s", quick)
    yield value_row("many_cost_of_twice_the_cohort", whole / half, "times", quick)
    yield value_row("many_peak_memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "GB", quick)
    yield value_row("many_accuracy", accuracy, "", quick)


def _seconds(size: int, rounds: int) -> tuple[float, float]:
    """The median round's seconds, and the last accuracy."""
    found = pilot("mnist-1000")
    cohort = Cohort("fixed", size)
    server = Server(
        mnist.two_layer, SecAgg(), _LOCAL, LocalOptimizer(0.1), rounds=rounds, test=found.test(), cohort=cohort
    )
    clients = [Client(name, found.load(name), mnist.two_layer) for name in found.clients]
    records = []
    for record in federate(server, clients):
        records.append(record)
        print(f"cohort {size}, round {record.round}: {record.accuracy:.4f}, {record.seconds:.1f} s", flush=True)
    return median(record.seconds for record in records), records[-1].accuracy or 0.0
