"""A server in a process of its own, as a coordinator would run it: it loads nothing of a client's. Not a test."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection

from torch import nn

from protocols.base import Messages
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import SGD
from securefl.protection import CKKS
from securefl.server import Server

RUN = "blind"


def model() -> nn.Module:
    return nn.Linear(10, 2)


def serve(pipe: Connection, roster: dict[str, bytes], rounds: int) -> None:
    """Run rounds over a pipe to where the clients are; report what is loaded; then stay, to be looked at."""
    training, optimizer = SGD(sampling_rate=1.0, steps=2), LocalOptimizer(0.5)
    server = Server(model, CKKS(key_rounds=2), training, optimizer, rounds=rounds, run=RUN)
    pipe.send(server.enrol(roster).encoded())

    def exchange(requests: Messages) -> Iterator[tuple[str, bytes]]:
        for name, request in requests.items():
            pipe.send((name, request))
            if (reply := pipe.recv()) is not None:
                yield name, reply

    server.set_up(exchange)
    for _ in range(rounds):
        server.round(exchange)
    server.finish(exchange)
    kinds = {f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects()}
    pipe.send((sorted(sys.modules), sorted(kinds), server._kept.state.tag))
    pipe.recv()
